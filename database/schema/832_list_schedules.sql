-- Changes nothing.
--
-- Volatile for the reason that get_job is: a statement that sets a schedule can read it back.

create function job_queue.list_schedules(
  p_schedule text default null
)
returns table (
  schedule text,
  cron text,
  time_zone text,
  job jsonb,
  missed_ticks text,
  paused boolean,
  next_at timestamptz,
  last_at timestamptz,
  last_job_id uuid,
  last_error text
)
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select
    schedule.schedule,
    schedule.cron,
    schedule.time_zone,
    schedule.job,
    schedule.missed_ticks,
    schedule.paused,
    schedule.next_at,
    schedule.last_at,
    schedule.last_job_id,
    schedule.last_error
    from job_queue.schedules as schedule
   where p_schedule is null
      or schedule.schedule = p_schedule
   order by schedule.schedule
$$;

comment on function job_queue.list_schedules(text) is
  'The schedules by name, or the one of this name. No row: there is none.';

revoke execute on function job_queue.list_schedules(text) from public;
