-- depends: 0095_raise_no_schedule

-- Changes no job: makes a schedule, or changes it.
--
-- The job is enqueued once on trial, and that is rolled back: what could not be enqueued is refused
-- now, and not at the first tick.

create function job_queue.set_schedule(
  p_schedule text,
  p_cron text,
  p_job jsonb default '{}',
  p_time_zone text default 'UTC',
  p_missed_ticks text default 'coalesce'
)
returns timestamptz
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next_at timestamptz;
begin
  if length(p_schedule) between 1 and 100 is not true then
    perform job_queue.raise_invalid_argument(
      'schedule', left(p_schedule, 100), 'Pass a name of 1 to 100 characters.');
  end if;
  if p_missed_ticks in ('coalesce', 'catch up') is not true then
    perform job_queue.raise_invalid_argument(
      'missed_ticks', p_missed_ticks, 'Pass coalesce or catch up.');
  end if;
  if not exists (select from pg_timezone_names as zone where zone.name = p_time_zone) then
    perform job_queue.raise_invalid_argument(
      'time_zone', p_time_zone, 'Pass a name of pg_timezone_names, such as Europe/Berlin.');
  end if;
  v_next_at := job_queue.next_tick(p_cron, p_time_zone);

  begin
    perform job_queue.enqueue_jobs(jsonb_build_array(p_job));
    raise sqlstate 'JQ00T';
  exception
    when sqlstate 'JQ00T' then
      null;
  end;

  insert into job_queue.schedules (schedule, cron, time_zone, job, missed_ticks, next_at)
  values (p_schedule, p_cron, p_time_zone, p_job, p_missed_ticks, v_next_at)
  on conflict (schedule) do update
     set cron = excluded.cron,
         time_zone = excluded.time_zone,
         job = excluded.job,
         missed_ticks = excluded.missed_ticks,
         next_at = case
           when (schedules.cron, schedules.time_zone) = (excluded.cron, excluded.time_zone)
             and not schedules.paused then coalesce(schedules.next_at, excluded.next_at)
           else excluded.next_at
         end
  returning schedules.next_at into v_next_at;
  return v_next_at;
end
$$;

comment on function job_queue.set_schedule(text, text, jsonb, text, text) is
  'Enqueues a job at each tick of p_cron (five fields, or @daily and the like), read in '
  'p_time_zone, and returns the next tick. A schedule of this name is changed; if its cron and '
  'zone stay, so do ticks that have passed unseen. p_job: the job, as one element of the argument '
  'of enqueue_jobs; with a unique_key, a tick adds none while the last one is unfinished. '
  'p_missed_ticks: if several ticks have passed unseen, coalesce enqueues one job for the last of '
  'them, catch up one for each. run_maintenance enqueues, so workers must run. Errors: JQ001 for '
  'an argument out of range, also of the job.';

revoke execute on function job_queue.set_schedule(text, text, jsonb, text, text) from public;
