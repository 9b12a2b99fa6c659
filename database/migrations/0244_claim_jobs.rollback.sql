-- queued -> running
--
-- Where there is nothing to take it returns before the query: planned while the table is empty,
-- that would scan it ever after.

create or replace function job_queue.claim_jobs(
  p_limit integer,
  p_worker text default null,
  p_queues text[] default null,
  p_job_types text[] default null,
  p_lease interval default '1 minute'
)
returns table (
  id uuid,
  claim_id bigint,
  status text,
  sleep_seconds integer,
  message text,
  created_at timestamptz,
  updated_at timestamptz,
  job_type text,
  payload jsonb,
  queue text,
  priority smallint,
  run_at timestamptz,
  attempt integer,
  max_attempts integer,
  timeout interval,
  losses integer,
  trace_context jsonb
)
language plpgsql
volatile
security definer
rows 10
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = on
set jit = off
as $$
declare
  v_picks job_queue.pick[] := job_queue.pick_jobs_for(
    p_limit, p_worker, p_queues, p_job_types, p_lease);
  v_now timestamptz := clock_timestamp();
begin
  if v_picks = '{}' then
    return;
  end if;

  return query
    with picked as materialized (
      select pick.*, nextval('job_queue.claims_claim_id_seq') as claim_id
        from unnest(v_picks) as pick
    ),
    started as (
      update job_queue.jobs as job
         set status = 'running', claimable = false,
             attempts = job.attempts + 1,
             updated_at = v_now
        from picked where job.id = picked.job_id
      returning job.*, picked.claim_id
    ),
    claimed as (
      insert into job_queue.claims (
        claim_id, job_id, worker, claimed_at, lease, expires_at, deadline_at, queue,
        concurrency_key, queue_slot, key_slot
      )
      overriding system value
      select
        picked.claim_id, picked.job_id, p_worker, v_now, p_lease, v_now + p_lease,
        v_now + picked.timeout, picked.queue, picked.concurrency_key, picked.queue_slot,
        picked.key_slot
        from picked
    ),
    recorded as (
      insert into job_queue.job_events (
        job_id, verb, from_status, to_status, claim_id, attempt, detail
      )
      select picked.job_id, 'claim', 'queued', 'running', picked.claim_id, picked.attempt,
             jsonb_build_object('worker', p_worker)
        from picked
    )
    select started.id, started.claim_id, started.status, started.sleep_seconds, started.message,
           started.created_at, started.updated_at, started.job_type, started.payload,
           started.queue, started.priority, started.run_at, started.attempts,
           started.max_attempts, started.timeout, started.losses, started.trace_context
      from started
     order by started.claim_id;
end
$$;

comment on function job_queue.claim_jobs(integer, text, text[], text[], interval) is
  'Takes the next jobs, p_limit (1 to 10000) at most, and returns them in their order, each with '
  'the claim_id that complete_job, fail_job, snooze_job and release_job ask for. No row: nothing '
  'is waiting. Jobs come from the first of p_queues that has any, then the second and so on; '
  'null: from all queues, that with the first job before the others. Within a queue the lowest '
  'priority comes first, then the earliest run_at, then the first to arrive; those that another '
  'transaction is taking are skipped. p_job_types: only jobs of these types; null, of all. '
  'p_worker says who asks, for people to read. The claims hold for p_lease (1 millisecond to 1 '
  'day), and longer if renewed by heartbeat. losses: how many claims on the job ran out before '
  'because their workers died. trace_context: what enqueue_job was given. Commit before the work '
  'starts. Errors: JQ001 for an argument out of range.';

revoke execute on function job_queue.claim_jobs(integer, text, text[], text[], interval)
  from public;
