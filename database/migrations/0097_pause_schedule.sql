-- depends: 0096_set_schedule

-- Changes no job.

create function job_queue.pause_schedule(
  p_schedule text,
  p_paused boolean default true
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_paused is null then
    perform job_queue.raise_invalid_argument('paused', null, 'Pass true or false.');
  end if;
  update job_queue.schedules as schedule
     set paused = p_paused,
         next_at = case
           when p_paused = schedule.paused then schedule.next_at
           when not p_paused then job_queue.next_tick(schedule.cron, schedule.time_zone)
         end
   where schedule.schedule = p_schedule;
  if not found then
    perform job_queue.raise_no_schedule(p_schedule);
  end if;
end
$$;

comment on function job_queue.pause_schedule(text, boolean) is
  'Stops a schedule or, with p_paused false, lets it go on from now: ticks that passed meanwhile '
  'are not made up for. Errors: JQ001 for null, JQ002 no such schedule.';

revoke execute on function job_queue.pause_schedule(text, boolean) from public;
