-- depends: 0022_fail_job

-- running -> queued or cancelled

create function job_queue.hand_back(
  p_job_id uuid,
  p_claim_id bigint,
  p_verb text,
  p_delay interval
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
  v_status text;
begin
  perform job_queue.end_claim(p_job_id, p_claim_id);

  update job_queue.jobs as job
     set status = case when job.cancel_requested then 'cancelled' else 'queued' end,
         claimable = not job.cancel_requested,
         attempts = job.attempts - 1,
         held_key = case when not job.cancel_requested then job.held_key end,
         run_at = coalesce(clock_timestamp() + p_delay, job.run_at),
         updated_at = clock_timestamp()
   where job.id = p_job_id
  returning job.status into v_status;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id)
  values (p_job_id, p_verb, 'running', v_status, p_claim_id);
end
$$;

comment on function job_queue.hand_back(uuid, bigint, text, interval) is
  'What snooze_job and release_job share. Private to this schema.';

revoke execute on function job_queue.hand_back(uuid, bigint, text, interval) from public;
