-- depends: 0015_complete_job

-- running -> failed

create function job_queue.fail_job(
  p_job_id uuid,
  p_claim_id bigint,
  p_error text default null
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
     set status = 'failed',
         result = jsonb_build_object('error', left(p_error, 10000)),
         updated_at = clock_timestamp()
   where job.id = p_job_id;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id, detail)
  values (p_job_id, 'fail', 'running', 'failed', p_claim_id,
          jsonb_build_object('error', left(p_error, 10000)));
end
$$;

comment on function job_queue.fail_job(uuid, bigint, text) is
  'Ends a run with failure and stores {"error": p_error}, cut after 10000 characters. Errors, each '
  'changing nothing: JQ002 no such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.fail_job(uuid, bigint, text) from public;
