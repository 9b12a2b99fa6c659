-- depends: 0113_complete_job

-- running -> queued or failed or cancelled

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
as $$
begin
  perform job_queue.check_delay('retry_in', p_retry_in);
  return job_queue.end_run(
    'fail', p_job_id, p_claim_id, p_error, coalesce(p_retryable, true), p_retry_in);
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
