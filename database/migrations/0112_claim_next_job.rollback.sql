-- queued -> running
--
-- Each priority is looked at by itself, so that jobs of a better priority whose time has not come
-- cost nothing. The plan is pinned to jobs_claimable_idx: one cached while the table was empty
-- would otherwise scan and sort the whole backlog on every claim after a burst.

create or replace function job_queue.claim_next_job(
  p_worker text default null,
  p_queues text[] default '{default}',
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
  timeout interval
)
language plpgsql
volatile
security definer
rows 1
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_job_id uuid;
  v_claim_id bigint;
  v_now timestamptz;
begin
  perform job_queue.check_lease(coalesce(p_lease, '0'));
  perform job_queue.reclaim_if_due();

  v_job_id := job_queue.lock_next_job(p_queues, p_job_types);
  if v_job_id is null then
    return;
  end if;

  v_now := clock_timestamp();
  insert into job_queue.claims as claim (
    job_id, worker, claimed_at, lease, expires_at, deadline_at
  )
  select job.id, p_worker, v_now, p_lease, v_now + p_lease, v_now + job.timeout
    from job_queue.jobs as job
   where job.id = v_job_id
  returning claim.claim_id into v_claim_id;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id, detail)
  values (v_job_id, 'claim', 'queued', 'running', v_claim_id,
          jsonb_build_object('worker', p_worker));

  return query
    update job_queue.jobs as job
       set status = 'running',
           claimable = false,
           attempts = job.attempts + 1,
           updated_at = v_now
     where job.id = v_job_id
    returning
      job.id,
      v_claim_id,
      job.status,
      job.sleep_seconds,
      job.message,
      job.created_at,
      job.updated_at,
      job.job_type,
      job.payload,
      job.queue,
      job.priority,
      job.run_at,
      job.attempts,
      job.max_attempts,
      job.timeout;
end
$$;

comment on function job_queue.claim_next_job(text, text[], text[], interval) is
  'Takes the next job and returns it with the claim_id that complete_job, fail_job, snooze_job and '
  'release_job ask for. No row: nothing is waiting. The next job is the one of the first of '
  'p_queues that has any, with the lowest priority, then the earliest run_at, then the first to '
  'arrive; those that another transaction is taking are skipped. p_job_types: only jobs of these '
  'types; null, of all. p_worker says who asks, for people to read. The claim holds for p_lease (1 '
  'millisecond to 1 day), and longer if renewed by heartbeat. Commit before the work starts. Call '
  'it as `select * from claim_next_job()`: `select (claim_next_job()).*` would claim a job for '
  'each column. Errors: JQ001 for an argument out of range.';

revoke execute on function job_queue.claim_next_job(text, text[], text[], interval) from public;
