-- Changes nothing.
--
-- Volatile, so that it reads what was committed while its caller waited for a lock.

create function job_queue.status_of(
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
    perform job_queue.raise_no_job(p_job_id);
  end if;
  return v_status;
end
$$;

comment on function job_queue.status_of(uuid) is
  'The job''s status. Private to this schema. Errors: JQ002 no such job.';

revoke execute on function job_queue.status_of(uuid) from public;
