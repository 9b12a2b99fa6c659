-- Changes nothing: says what is wrong with a job that is_in_order finds wanting.

create function job_queue.refuse_job(
  p_job job_queue.new_job
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  case
    when length(p_job.job_type) between 1 and 100 is not true then
      perform job_queue.raise_invalid_argument(
        'job_type', left(p_job.job_type, 100), 'Pass a name of 1 to 100 characters.');
    when pg_column_size(p_job.payload) <= 4194304 is not true then
      perform job_queue.raise_invalid_argument(
        'payload', pg_column_size(p_job.payload) || ' bytes', 'Pass JSON of at most 4 MiB.');
    when p_job.sleep_seconds between 0 and 86400 is not true then
      perform job_queue.raise_invalid_argument(
        'sleep_seconds', p_job.sleep_seconds::text,
        'Pass a whole number of seconds from 0 to 86400.');
    when length(p_job.message) > 10000 then
      perform job_queue.raise_invalid_argument(
        'message', length(p_job.message) || ' characters', 'Pass at most 10000 characters.');
    when length(p_job.queue) between 1 and 100 is not true then
      perform job_queue.raise_invalid_argument(
        'queue', left(p_job.queue, 100), 'Pass a name of 1 to 100 characters.');
    when p_job.priority between 0 and 3 is not true then
      perform job_queue.raise_invalid_argument(
        'priority', p_job.priority::text,
        'Pass 0 for what runs first, 1, 2, or 3 for what runs last.');
    when not isfinite(p_job.run_at) then
      perform job_queue.raise_invalid_argument(
        'run_at', p_job.run_at::text, 'Pass a time that comes.');
    when p_job.max_attempts < 1 then
      perform job_queue.raise_invalid_argument(
        'max_attempts', p_job.max_attempts::text,
        'Pass 1 for a job that is not retried, or more.');
    when p_job.retry_delay not between interval '0' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'retry_delay', p_job.retry_delay::text, 'Pass an interval from 0 to 1 year.');
    when p_job.retry_delay_max not between interval '0' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'retry_delay_max', p_job.retry_delay_max::text, 'Pass an interval from 0 to 1 year.');
    when p_job.max_losses < 0 then
      perform job_queue.raise_invalid_argument(
        'max_losses', p_job.max_losses::text,
        'Pass a number of workers, or 0 for a job that must not run twice.');
    when p_job.timeout not between interval '1 millisecond' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'timeout', p_job.timeout::text, 'Pass an interval from 1 millisecond to 1 year.');
    when length(p_job.unique_key) not between 1 and 500 then
      perform job_queue.raise_invalid_argument(
        'unique_key', length(p_job.unique_key) || ' characters', 'Pass 1 to 500 characters.');
    when p_job.on_parent_failure in ('cancel', 'release') is not true then
      perform job_queue.raise_invalid_argument(
        'on_parent_failure', p_job.on_parent_failure, 'Pass cancel or release.');
    when jsonb_typeof(p_job.trace_context) <> 'object'
      or pg_column_size(p_job.trace_context) > 8192 then
      perform job_queue.raise_invalid_argument(
        'trace_context', left(p_job.trace_context::text, 100),
        'Pass a JSON object of at most 8 KiB.');
    else
      perform job_queue.raise_invalid_argument(
        'concurrency_key', length(p_job.concurrency_key) || ' characters',
        'Pass 1 to 500 characters.');
  end case;
end
$$;

comment on function job_queue.refuse_job(job_queue.new_job) is
  'Raises JQ001 for the first argument that is out of range. Private to this schema.';

revoke execute on function job_queue.refuse_job(job_queue.new_job) from public;
