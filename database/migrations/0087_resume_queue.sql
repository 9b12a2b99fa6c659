-- depends: 0086_pause_queue

-- Changes no job.

create function job_queue.resume_queue(
  p_queue text
)
returns void
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select job_queue.set_queue(p_queue, '{"paused": false}')
$$;

comment on function job_queue.resume_queue(text) is
  'Lets the jobs of a paused queue be claimed again. Errors: JQ001 for a wrong name.';

revoke execute on function job_queue.resume_queue(text) from public;
