-- queued -> running
--
-- What claim_jobs does, written out for the call that is made most: three plain statements take
-- less time than one that handles any number.

create function job_queue.claim_next_job(
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
rows 1
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_pick job_queue.pick := (
    job_queue.pick_jobs_for(1, p_worker, p_queues, p_job_types, p_lease))[1];
  v_claim_id bigint;
  v_now timestamptz := clock_timestamp();
begin
  if v_pick.job_id is null then
    return;
  end if;

  insert into job_queue.claims as claim (
    job_id, worker, claimed_at, lease, expires_at, deadline_at, queue, concurrency_key,
    queue_slot, key_slot
  )
  values (
    v_pick.job_id, p_worker, v_now, p_lease, v_now + p_lease, v_now + v_pick.timeout,
    v_pick.queue, v_pick.concurrency_key, v_pick.queue_slot, v_pick.key_slot
  )
  returning claim.claim_id into v_claim_id;

  insert into job_queue.job_events (
    job_id, verb, from_status, to_status, claim_id, attempt, detail
  )
  values (
    v_pick.job_id, 'claim', 'queued', 'running', v_claim_id, v_pick.attempt,
    jsonb_build_object('worker', p_worker)
  );

  return query
    update job_queue.jobs as job
       set status = 'running',
           claimable = false,
           attempts = job.attempts + 1,
           updated_at = v_now
     where job.id = v_pick.job_id
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
      job.timeout,
      job.losses,
      job.trace_context;
end
$$;

comment on function job_queue.claim_next_job(text, text[], text[], interval) is
  'claim_jobs for one job. Call it as `select * from claim_next_job()`: `select '
  '(claim_next_job()).*` would claim a job for each column. Errors: JQ001 for an argument out of '
  'range.';

revoke execute on function job_queue.claim_next_job(text, text[], text[], interval) from public;
