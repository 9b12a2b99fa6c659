-- -> queued

create function job_queue.enqueue_job(
  p_job_type text default 'sleep',
  p_payload jsonb default '{}',
  p_sleep_seconds integer default 3,
  p_message text default null,
  p_queue text default 'default',
  p_priority integer default 1,
  p_run_at timestamptz default null,
  p_delay interval default null,
  p_max_attempts integer default 1,
  p_retry_delay interval default '15 seconds',
  p_retry_delay_max interval default '1 hour',
  p_max_losses integer default 3
)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job_id uuid;
begin
  perform job_queue.check_job(
    p_job_type, p_payload, p_sleep_seconds, p_message, p_queue, p_priority, p_run_at, p_delay,
    p_max_attempts, p_retry_delay, p_retry_delay_max, p_max_losses);

  insert into job_queue.jobs (
    job_type,
    payload,
    sleep_seconds,
    message,
    queue,
    priority,
    run_at,
    max_attempts,
    retry_delay,
    retry_delay_max,
    max_losses
  )
  values (
    p_job_type,
    p_payload,
    p_sleep_seconds,
    p_message,
    p_queue,
    p_priority,
    coalesce(p_run_at, clock_timestamp() + coalesce(p_delay, '0')),
    p_max_attempts,
    p_retry_delay,
    p_retry_delay_max,
    p_max_losses
  )
  returning jobs.id into v_job_id;

  insert into job_queue.job_events (job_id, verb, to_status)
  values (v_job_id, 'enqueue', 'queued');
  return v_job_id;
end
$$;

comment on function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer
) is
  'Adds a job of p_job_type with the input p_payload, and returns its id. The job exists once the '
  'caller''s transaction commits, and never did if it rolls back. p_sleep_seconds (0 to 86400) and '
  'p_message (at most 10000 characters) are the input of the type sleep. p_queue: the lane it '
  'waits in. p_priority: 0 runs first, 3 last. p_run_at or p_delay: not before then. '
  'p_max_attempts: how often it may be tried if it fails, after a random wait of up to '
  'p_retry_delay, doubled each time, at most p_retry_delay_max. p_max_losses: how many workers it '
  'may take down before it fails; 0 if it must not run twice. Errors: JQ001 for an argument out of '
  'range.';

revoke execute on function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer
) from public;
