-- depends: 0112_claim_next_job

-- running -> succeeded
--
-- What end_runs does, written out for the call that is made most: a run that succeeds asks for no
-- decision. The claim's row is the fence here too, and locked before the job's.

create or replace function job_queue.complete_job(
  p_job_id uuid,
  p_claim_id bigint,
  p_result jsonb default null
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_ended record;
  v_attempt integer;
begin
  delete from job_queue.claims as claim
   where claim.claim_id = p_claim_id
     and claim.job_id = p_job_id
  returning claim.queue, claim.concurrency_key into v_ended;
  if not found then
    perform job_queue.raise_lost_claim(p_job_id, p_claim_id);
  end if;

  update job_queue.jobs as job
     set status = 'succeeded',
         result = p_result,
         held_key = null,
         updated_at = clock_timestamp()
   where job.id = p_job_id
  returning job.attempts into v_attempt;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id, attempt)
  values (p_job_id, 'complete', 'running', 'succeeded', p_claim_id, v_attempt);

  if v_ended.concurrency_key is not null then
    perform job_queue.put_jobs_back(v_ended.queue, v_ended.concurrency_key, 1);
  end if;
  if exists (select from job_queue.job_dependencies where parent_id = p_job_id) then
    perform job_queue.settle_dependencies(array[p_job_id]);
  end if;
end
$$;

comment on function job_queue.complete_job(uuid, bigint, jsonb) is
  'Ends a run with success and stores p_result. Called in the transaction of the handler''s own '
  'writes, it commits them exactly once or, if the claim was lost, aborts them. Errors, each '
  'changing nothing: JQ002 no such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.complete_job(uuid, bigint, jsonb) from public;
