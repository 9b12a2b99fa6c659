-- Changes nothing: refuses a job that could not be stored or could not run. The table has no CHECKs
-- for this: 02_jobs.sql says why.

create function job_queue.check_job(
  p_job_type text,
  p_payload jsonb,
  p_sleep_seconds integer,
  p_message text,
  p_queue text,
  p_priority integer,
  p_run_at timestamptz,
  p_delay interval,
  p_max_attempts integer,
  p_retry_delay interval,
  p_retry_delay_max interval,
  p_max_losses integer,
  p_timeout interval,
  p_unique_key text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  case
    when p_job_type is null or length(p_job_type) not between 1 and 100 then
      perform job_queue.raise_invalid_argument(
        'job_type', left(p_job_type, 100), 'Pass a name of 1 to 100 characters.');
    when p_payload is null or pg_column_size(p_payload) > 4194304 then
      perform job_queue.raise_invalid_argument(
        'payload', pg_column_size(p_payload) || ' bytes', 'Pass JSON of at most 4 MiB.');
    when p_sleep_seconds is null or p_sleep_seconds not between 0 and 86400 then
      perform job_queue.raise_invalid_argument(
        'sleep_seconds', p_sleep_seconds::text, 'Pass a whole number of seconds from 0 to 86400.');
    when length(p_message) > 10000 then
      perform job_queue.raise_invalid_argument(
        'message', length(p_message) || ' characters', 'Pass at most 10000 characters.');
    when p_queue is null or length(p_queue) not between 1 and 100 then
      perform job_queue.raise_invalid_argument(
        'queue', left(p_queue, 100), 'Pass a name of 1 to 100 characters.');
    when p_priority is null or p_priority not between 0 and 3 then
      perform job_queue.raise_invalid_argument(
        'priority', p_priority::text, 'Pass 0 for what runs first, 1, 2, or 3 for what runs last.');
    when p_run_at is not null and p_delay is not null then
      perform job_queue.raise_invalid_argument(
        'run_at and delay', p_run_at || ' and ' || p_delay, 'Pass one of the two.');
    when not isfinite(p_run_at) then
      perform job_queue.raise_invalid_argument(
        'run_at', p_run_at::text, 'Pass a time that comes.');
    when p_delay not between interval '0' and interval '10 years' then
      perform job_queue.raise_invalid_argument(
        'delay', p_delay::text, 'Pass an interval from 0 to 10 years.');
    when p_max_attempts is null or p_max_attempts < 1 then
      perform job_queue.raise_invalid_argument(
        'max_attempts', p_max_attempts::text, 'Pass 1 for a job that is not retried, or more.');
    when p_retry_delay is null or p_retry_delay not between interval '0' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'retry_delay', p_retry_delay::text, 'Pass an interval from 0 to 1 year.');
    when p_retry_delay_max is null
      or p_retry_delay_max not between interval '0' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'retry_delay_max', p_retry_delay_max::text, 'Pass an interval from 0 to 1 year.');
    when p_max_losses is null or p_max_losses < 0 then
      perform job_queue.raise_invalid_argument(
        'max_losses', p_max_losses::text,
        'Pass a number of workers, or 0 for a job that must not run twice.');
    when p_timeout not between interval '1 millisecond' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'timeout', p_timeout::text, 'Pass an interval from 1 millisecond to 1 year.');
    when length(p_unique_key) not between 1 and 500 then
      perform job_queue.raise_invalid_argument(
        'unique_key', length(p_unique_key) || ' characters', 'Pass 1 to 500 characters.');
    else
      return;
  end case;
end
$$;

comment on function job_queue.check_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text
) is
  'Raises JQ001 if one of these arguments of enqueue_job is out of range. Private to this schema.';

revoke execute on function job_queue.check_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text
) from public;
