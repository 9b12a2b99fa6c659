drop function job_queue.enqueue_job(text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval, integer, interval, text, text, uuid[], text);

-- -> queued
--
-- The loop goes round again only when the job that had the unique key has ended in between.

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
  p_max_losses integer default 3,
  p_timeout interval default null,
  p_unique_key text default null
)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_job_id uuid;
begin
  perform job_queue.check_job(
    p_job_type, p_payload, p_sleep_seconds, p_message, p_queue, p_priority, p_run_at, p_delay,
    p_max_attempts, p_retry_delay, p_retry_delay_max, p_max_losses, p_timeout, p_unique_key);

  loop
    insert into job_queue.jobs (
      job_type, payload, sleep_seconds, message, queue, priority, run_at, max_attempts,
      retry_delay, retry_delay_max, max_losses, timeout, unique_key, held_key
    )
    values (
      p_job_type, p_payload, p_sleep_seconds, p_message, p_queue, p_priority,
      coalesce(p_run_at, clock_timestamp() + coalesce(p_delay, '0')), p_max_attempts,
      p_retry_delay, p_retry_delay_max, p_max_losses, p_timeout, p_unique_key, p_unique_key
    )
    on conflict (queue, held_key) where held_key is not null do nothing
    returning jobs.id into v_job_id;
    exit when found;

    select job.id
      into v_job_id
      from job_queue.jobs as job
     where job.queue = p_queue
       and job.held_key = p_unique_key;
    if found then
      raise notice 'job % has the unique key % already', v_job_id, p_unique_key;
      return v_job_id;
    end if;
  end loop;

  insert into job_queue.job_events (job_id, verb, to_status)
  values (v_job_id, 'enqueue', 'queued');
  return v_job_id;
end
$$;

comment on function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text
) is
  'Adds a job of p_job_type with the input p_payload, and returns its id. The job exists once the '
  'caller''s transaction commits, and never did if it rolls back. p_sleep_seconds (0 to 86400) and '
  'p_message (at most 10000 characters) are the input of the type sleep. p_queue: the lane it '
  'waits in. p_priority: 0 runs first, 3 last. p_run_at or p_delay: not before then. '
  'p_max_attempts: how often it may be tried if it fails, after a random wait of up to '
  'p_retry_delay, doubled each time, at most p_retry_delay_max. p_max_losses: how many workers it '
  'may take down before it fails; 0 if it must not run twice. p_timeout: how long an attempt may '
  'run. p_unique_key: if a job with this key is queued or running in this queue, its id is '
  'returned, with a notice, and no job is added. Errors: JQ001 for an argument out of range.';

revoke execute on function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text
) from public;
