-- running -> succeeded or queued or failed or cancelled
--
-- Its first step is the fence: a run whose claim does not hold is left alone. Its second decides
-- what becomes of the job, on the row as it is once it is locked, so that a cancel_job which was
-- just changing it counts.
--
-- Locks are taken in one order: the claims by their numbers, then their jobs in the same order. Of
-- two calls with one claim, the second waits for the first one's transaction at the claim's row and
-- then finds it gone.

create or replace function job_queue.end_runs(
  p_verb text,
  p_runs job_queue.run[]
)
returns text[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = on
set jit = off
as $$
declare
  v_run record;
  v_statuses text[] := array_fill(null::text, array[cardinality(p_runs)]);
  v_due text[];
begin
  for v_run in
    with held as materialized (
      select given.*, claim.queue, claim.concurrency_key
        from (select distinct on (run.job_id, run.claim_id) run.*
                from unnest(p_runs) with ordinality as run (
                       job_id, claim_id, result, error, retryable, delay, position)
               order by run.job_id, run.claim_id, run.position) as given
        join job_queue.claims as claim using (claim_id, job_id)
       order by claim.claim_id for update of claim
    ),
    decided as materialized (
      select held.*, job.attempts as attempt,
             job_queue.status_after(p_verb, job.cancel_requested, held.retryable, job.attempts,
               job.max_attempts, job.losses, job.max_losses) as status,
             case when p_verb in ('fail', 'time_out', 'reclaim') then
               jsonb_build_object('error', left(held.error, 10000)) end as detail
        from held join job_queue.jobs as job on job.id = held.job_id
       order by held.claim_id for update of job
    ),
    ended as (
      delete from job_queue.claims as claim
       using decided where claim.claim_id = decided.claim_id
      returning decided.*
    ),
    recorded as (
      insert into job_queue.job_events (
        job_id, verb, from_status, to_status, claim_id, attempt, detail)
      select job_id, p_verb, 'running', status, claim_id, attempt, detail from ended
    )
    update job_queue.jobs as job
       set status = ended.status, claimable = (ended.status = 'queued'),
           attempts = job.attempts - (p_verb in ('snooze', 'release', 'reclaim'))::integer,
           losses = job.losses + (p_verb = 'reclaim')::integer,
           run_at = case ended.status when 'queued' then job_queue.next_run_at(p_verb, job.run_at,
             ended.delay, job.attempts, job.retry_delay, job.retry_delay_max) else job.run_at end,
           held_key = case ended.status when 'queued' then job.held_key end,
           result = case ended.status when 'succeeded' then ended.result
                                      when 'failed' then ended.detail end,
           failed_at = case ended.status when 'failed' then clock_timestamp() end,
           updated_at = clock_timestamp()
      from ended where job.id = ended.job_id
    returning ended.*,
              case when job.claimable and job.run_at <= clock_timestamp() then job.queue end as due
  loop
    v_statuses[v_run.position] := v_run.status;
    v_due := v_due || v_run.due;
    if v_run.concurrency_key is not null then
      perform job_queue.put_jobs_back(v_run.queue, v_run.concurrency_key, 1);
    end if;
  end loop;
  perform job_queue.settle_dependencies(array(select run.job_id from unnest(p_runs) as run));
  perform job_queue.wake_workers(v_due) where array_remove(v_due, null) <> '{}';
  return v_statuses;
end
$$;

comment on function job_queue.end_runs(text, job_queue.run[]) is
  'Ends the runs as the verb has it, and returns the new status of each job, in order; null for a '
  'run that was over, or whose claim another has. Private to this schema.';

revoke execute on function job_queue.end_runs(text, job_queue.run[]) from public;
