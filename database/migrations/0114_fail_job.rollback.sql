-- running -> queued or failed or cancelled
--
-- The wait before another attempt is random between nothing and retry_delay, doubled for each
-- attempt before ("full jitter"), so that what failed together does not come back together:
-- Exponential Backoff And Jitter, AWS Architecture Blog, 2015.

create or replace function job_queue.fail_job(
  p_job_id uuid,
  p_claim_id bigint,
  p_error text default null,
  p_retryable boolean default true,
  p_retry_in interval default null
)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_error jsonb := jsonb_build_object('error', left(p_error, 10000));
  v_status text;
begin
  perform job_queue.check_delay('retry_in', p_retry_in);
  perform job_queue.end_claim(p_job_id, p_claim_id);

  select case
           when job.cancel_requested then 'cancelled'
           when p_retryable and job.attempts < job.max_attempts then 'queued'
           else 'failed'
         end
    into v_status
    from job_queue.jobs as job
   where job.id = p_job_id
     for update;

  update job_queue.jobs as job
     set status = v_status,
         claimable = (v_status = 'queued'),
         run_at = case
           when v_status <> 'queued' then job.run_at
           else clock_timestamp() + coalesce(
             p_retry_in,
             make_interval(secs => random() * least(
               extract(epoch from job.retry_delay) * power(2, least(job.attempts - 1, 30)),
               extract(epoch from job.retry_delay_max))))
         end,
         result = case when v_status = 'failed' then v_error end,
         held_key = case when v_status = 'queued' then job.held_key end,
         updated_at = clock_timestamp()
   where job.id = p_job_id;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id, detail)
  values (p_job_id, 'fail', 'running', v_status, p_claim_id, v_error);
  return v_status;
end
$$;

comment on function job_queue.fail_job(uuid, bigint, text, boolean, interval) is
  'Ends a run with failure, and returns the job''s new status. While attempts are left it is '
  'queued for another, after p_retry_in or else a random wait (retry_delay, retry_delay_max). With '
  'none left, or with p_retryable => false, it is failed, and its result is {"error": p_error}, '
  'cut after 10000 characters; job_history keeps the error of every attempt. If cancel_job asked '
  'for it, it is cancelled. Errors, each changing nothing: JQ001 for a wrong p_retry_in, JQ002 no '
  'such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.fail_job(uuid, bigint, text, boolean, interval) from public;
