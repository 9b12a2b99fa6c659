-- Changes nothing: says that there is no such job.

create function job_queue.raise_no_job(
  p_job_id uuid
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'JQ002',
    message = format('job %s does not exist', coalesce(p_job_id::text, 'null')),
    hint = 'Pass the id that enqueue_job or claim_next_job returned.';
end
$$;

comment on function job_queue.raise_no_job(uuid) is
  'Raises JQ002. Private to this schema.';

revoke execute on function job_queue.raise_no_job(uuid) from public;
