-- depends: 0016_fail_job

-- running -> queued

create function job_queue.release_job(
  p_job_id uuid,
  p_claim_id bigint
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
     set status = 'queued',
         claimable = true,
         updated_at = clock_timestamp()
   where job.id = p_job_id;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id)
  values (p_job_id, 'release', 'running', 'queued', p_claim_id);
end
$$;

comment on function job_queue.release_job(uuid, bigint) is
  'Hands a job back unfinished, to the place in the queue that it had: for a worker that shuts '
  'down. Errors, each changing nothing: JQ002 no such job, JQ003 it is not running, JQ004 another '
  'claim holds it.';

revoke execute on function job_queue.release_job(uuid, bigint) from public;
