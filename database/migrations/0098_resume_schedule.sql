-- depends: 0097_pause_schedule

-- Changes no job.

create function job_queue.resume_schedule(
  p_schedule text
)
returns void
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select job_queue.pause_schedule(p_schedule, false)
$$;

comment on function job_queue.resume_schedule(text) is
  'Lets a paused schedule go on from now: ticks that passed meanwhile are not made up for. Errors: '
  'JQ002 no such schedule.';

revoke execute on function job_queue.resume_schedule(text) from public;
