-- Changes nothing.
--
-- Volatile, so that it reads what was committed while its caller waited for a lock.

create or replace function job_queue.status_of(
  p_job_id uuid
)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_status text;
begin
  select job.status
    into v_status
    from job_queue.jobs as job
   where job.id = p_job_id;
  if not found then
    raise exception using
      errcode = 'JQ002',
      message = format('job %s does not exist', coalesce(p_job_id::text, 'null')),
      hint = 'Pass the id that enqueue_job or claim_next_job returned.';
  end if;
  return v_status;
end
$$;

comment on function job_queue.status_of(uuid) is
  'The job''s status. Private to this schema. Errors: JQ002 no such job.';

revoke execute on function job_queue.status_of(uuid) from public;
