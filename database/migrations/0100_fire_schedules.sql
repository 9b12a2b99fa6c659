-- depends: 0099_delete_schedule

-- -> queued or blocked
--
-- The row of a schedule is locked while its job is enqueued and next_at moved on, in one
-- transaction, and passed over by whoever else comes along: each tick enqueues once, however many
-- call this at a time. Whatever is wrong with one schedule is noted in its last_error, and does not
-- keep the others from their ticks. One whose unique key another transaction is just taking is
-- tried again next time.
--
-- next_at need not be a tick: a row made by hand has none, an error leaves the time of another try,
-- and cron may have been changed by hand. So it fires at the first tick that is not before it.

create function job_queue.fire_schedules(
  p_limit integer default 100
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set lock_timeout = '100ms'
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_schedule job_queue.schedules;
  v_tick timestamptz;
  v_next_at timestamptz;
  v_job_id uuid;
  v_error text;
  v_count integer := 0;
begin
  for v_schedule in
    select schedule.*
      from job_queue.schedules as schedule
     where not schedule.paused
       and coalesce(schedule.next_at, '-infinity') <= v_now
     order by schedule.next_at nulls first, schedule.schedule
     limit p_limit
       for update skip locked
  loop
    v_tick := null;
    v_next_at := null;
    v_job_id := null;
    v_error := null;
    begin
      v_next_at := job_queue.next_tick(
        v_schedule.cron, v_schedule.time_zone,
        coalesce(v_schedule.next_at - interval '1 microsecond', v_now));
      if v_next_at <= v_now then
        v_tick := case v_schedule.missed_ticks
          when 'catch up' then v_next_at
          else job_queue.last_tick(v_schedule.cron, v_schedule.time_zone, v_next_at, v_now)
        end;
        v_next_at := job_queue.next_tick(v_schedule.cron, v_schedule.time_zone, v_tick);
        select added.id
          into v_job_id
          from job_queue.enqueue_jobs(
            jsonb_build_array(v_schedule.job),
            jsonb_build_object('schedule', v_schedule.schedule, 'tick', v_tick)) as added
         where added.created;
        v_count := v_count + (v_job_id is not null)::integer;
      end if;
    exception
      when lock_not_available or deadlock_detected then
        continue;
      when others then
        v_error := sqlerrm;
    end;

    update job_queue.schedules as schedule
       set next_at = coalesce(v_next_at, v_now + interval '1 hour'),
           last_at = case when v_job_id is null then schedule.last_at else v_tick end,
           last_job_id = coalesce(v_job_id, schedule.last_job_id),
           last_error = v_error
     where schedule.schedule = v_schedule.schedule;
  end loop;
  return v_count;
end
$$;

comment on function job_queue.fire_schedules(integer) is
  'Enqueues the jobs of the schedules whose tick has come, for p_limit of them at most, and '
  'returns how many. run_maintenance calls it; calling it at any time, from anywhere, is safe.';

revoke execute on function job_queue.fire_schedules(integer) from public;
