-- depends: 0225_prune_jobs

-- Changes nothing but what the functions that it calls change.
--
-- It prunes for a tenth of a second at most, because until it commits nobody sees what it has
-- enqueued or queued again. Where that does not suffice it says so, and whoever wants to keep up
-- calls it again, after as long a rest as the rest of the system is to have.

create or replace function job_queue.run_maintenance(
  p_unless_within interval default null
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_done jsonb;
  v_fired integer := 0;
  v_fired_now integer;
  v_step record;
  v_pruned integer := 0;
  v_is_done boolean;
  v_now timestamptz := clock_timestamp();
begin
  perform job_queue.check_delay('unless_within', p_unless_within);
  if to_timestamp(pg_sequence_last_value('job_queue.maintained_at') / 1000000.0)
     between v_now - p_unless_within and v_now
  then
    return null;
  end if;

  v_done := jsonb_build_object(
    'timed_out', job_queue.time_out_jobs(1000),
    'reclaimed', job_queue.reclaim_expired_claims(1000),
    'settled', job_queue.settle_overdue_dependencies(),
    'put_back', job_queue.put_overdue_jobs_back());
  for v_turn in 1..100 loop  -- for those that catch up
    v_fired_now := job_queue.fire_schedules();
    exit when v_fired_now = 0;
    v_fired := v_fired + v_fired_now;
  end loop;

  delete from job_queue.worker_sightings as worker
   where worker.worker in (
     select old.worker
       from job_queue.worker_sightings as old
      where old.seen_at < v_now - interval '1 day'
        and pg_try_advisory_xact_lock(hashtextextended('job_queue worker ' || old.worker, 0))
      limit 1000
        for update skip locked);
  v_is_done := job_queue.prune_idempotency_keys(10000) < 10000;
  loop
    select step.pruned, step.is_done into v_step from job_queue.prune_step(500) as step;
    v_pruned := v_pruned + v_step.pruned;
    exit when v_step.is_done or clock_timestamp() > v_now + interval '100 ms';
  end loop;

  v_done := v_done || jsonb_build_object('fired', v_fired, 'pruned', v_pruned);
  if not (v_is_done and v_step.is_done) then
    v_done := v_done || '{"more": true}';
  end if;
  perform setval('job_queue.maintained_at', (extract(epoch from v_now) * 1000000)::bigint);
  return v_done;
end
$$;

comment on function job_queue.run_maintenance(interval) is
  'What has to be done from time to time: ends runs that are out of time or whose lease has run '
  'out, settles dependencies, puts jobs back that a limit had set aside, enqueues the jobs of '
  'schedules, and prunes old jobs and idempotency keys. Returns how many of most, as JSON, with '
  '"more": true if there is more to prune than it had time for: call it again soon, and again, '
  'while it says so. Bounded, and safe to call from any number of workers at once: none waits for '
  'another. '
  'p_unless_within: if somebody has called it within that time, and it came to its end, nothing is '
  'done, and null is returned; so that many workers may ask often. Errors: JQ001 for an argument '
  'out of range.';

revoke execute on function job_queue.run_maintenance(interval) from public;
