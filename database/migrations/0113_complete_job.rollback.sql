-- running -> succeeded

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
begin
  perform job_queue.end_claim(p_job_id, p_claim_id);

  update job_queue.jobs as job
     set status = 'succeeded',
         result = p_result,
         held_key = null,
         updated_at = clock_timestamp()
   where job.id = p_job_id;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id)
  values (p_job_id, 'complete', 'running', 'succeeded', p_claim_id);
end
$$;

comment on function job_queue.complete_job(uuid, bigint, jsonb) is
  'Ends a run with success and stores p_result. Called in the transaction of the handler''s own '
  'writes, it commits them exactly once or, if the claim was lost, aborts them. Errors, each '
  'changing nothing: JQ002 no such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.complete_job(uuid, bigint, jsonb) from public;
