-- -> queued or blocked
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
  p_max_attempts integer default null,
  p_retry_delay interval default null,
  p_retry_delay_max interval default null,
  p_max_losses integer default null,
  p_timeout interval default null,
  p_unique_key text default null,
  p_concurrency_key text default null,
  p_depends_on uuid[] default null,
  p_on_parent_failure text default 'cancel',
  p_trace_context jsonb default null
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
  v_status text := case when cardinality(p_depends_on) > 0 then 'blocked' else 'queued' end;
  v_policy record;
  v_job_id uuid;
begin
  if not job_queue.is_in_order(
    p_job_type, p_payload, p_sleep_seconds, p_message, p_queue, p_priority, p_run_at,
    p_max_attempts, p_retry_delay, p_retry_delay_max, p_max_losses, p_timeout, p_unique_key,
    p_concurrency_key, p_on_parent_failure, p_trace_context
  ) then
    perform job_queue.refuse_job(row(
      p_job_type, p_payload, p_sleep_seconds, p_message, p_queue, p_priority, p_run_at, p_delay,
      p_max_attempts, p_retry_delay, p_retry_delay_max, p_max_losses, p_timeout, p_unique_key,
      p_concurrency_key, p_depends_on, p_on_parent_failure, p_trace_context)::job_queue.new_job);
  end if;
  if p_delay is not null then
    p_run_at := job_queue.start_time(p_run_at, p_delay);
  end if;
  select * into v_policy from job_queue.queues as queue where queue.queue = p_queue;

  loop
    insert into job_queue.jobs (
      status, claimable, job_type, payload, sleep_seconds, message, queue, priority, run_at,
      max_attempts, retry_delay, retry_delay_max, max_losses, timeout, unique_key, held_key,
      concurrency_key, depends_on, trace_context
    )
    values (
      v_status, v_status = 'queued', p_job_type, p_payload, p_sleep_seconds, p_message, p_queue,
      p_priority, coalesce(p_run_at, clock_timestamp()),
      coalesce(p_max_attempts, v_policy.max_attempts, 1),
      coalesce(p_retry_delay, v_policy.retry_delay, '15 seconds'),
      coalesce(p_retry_delay_max, v_policy.retry_delay_max, '1 hour'),
      coalesce(p_max_losses, v_policy.max_losses, 3),
      coalesce(p_timeout, v_policy.timeout), p_unique_key, p_unique_key, p_concurrency_key,
      p_depends_on, p_trace_context
    )
    on conflict (queue, held_key) where held_key is not null do nothing
    returning jobs.id into v_job_id;
    exit when found;

    select job.id into v_job_id
      from job_queue.jobs as job
     where job.queue = p_queue and job.held_key = p_unique_key;
    if found then
      raise notice 'job % has the unique key % already', v_job_id, p_unique_key;
      return v_job_id;
    end if;
  end loop;

  insert into job_queue.job_events (job_id, verb, to_status)
  values (v_job_id, 'enqueue', v_status);
  if v_status = 'blocked' then
    perform job_queue.add_dependencies(v_job_id, p_depends_on, p_on_parent_failure);
  elsif coalesce(p_run_at, '-infinity') <= clock_timestamp()
    and job_queue.has_sleepers('') then
    perform job_queue.wake_workers(array[p_queue]);
  end if;
  return v_job_id;
end
$$;

comment on function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text, text, uuid[], text, jsonb
) is
  'Adds a job of p_job_type with the input p_payload, and returns its id. The job exists once the '
  'caller''s transaction commits, and never did if it rolls back. p_sleep_seconds (0 to 86400) and '
  'p_message (at most 10000 characters) are the input of the type sleep. p_queue: the lane it '
  'waits in. p_priority: 0 runs first, 3 last. p_run_at or p_delay: not before then. '
  'p_max_attempts: how often it may be tried if it fails, after a random wait of up to '
  'p_retry_delay, doubled each time, at most p_retry_delay_max. p_max_losses: how many workers it '
  'may take down before it fails; 0 if it must not run twice. p_timeout: how long an attempt may '
  'run. Where one of these is null the queue''s default holds. p_unique_key: if an unfinished job '
  'in this queue has this key, its id is returned, with a notice, and no job is added. '
  'p_concurrency_key: what the queue''s key_concurrency_limit counts by. p_depends_on: the job is '
  'blocked until these have succeeded; if one fails or is cancelled, p_on_parent_failure says '
  'whether to cancel the job or to release it all the same. p_trace_context: the W3C trace context '
  'of whoever enqueues, a JSON object of at most 8 KiB, for the worker that claims the job. If the '
  'job may run at once, workers that sleep are woken when the transaction commits: with a NOTIFY, '
  'after which it cannot be prepared (PREPARE TRANSACTION). Errors: JQ001 for an argument out of '
  'range, JQ002 for a parent that does not exist.';

revoke execute on function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text, text, uuid[], text, jsonb
) from public;
