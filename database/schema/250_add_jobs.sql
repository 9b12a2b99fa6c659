-- -> queued or blocked
--
-- In the order of their unique keys, so that two calls with the same keys cannot deadlock; seq,
-- taken beforehand, keeps the order of arrival.

create function job_queue.add_jobs(
  p_jobs job_queue.new_job[],
  p_ids uuid[],
  p_open boolean[],
  p_detail jsonb
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = on
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_count integer;
  v_due text[];
begin
  perform job_queue.refuse_job(new)
     from unnest(p_jobs) as new
    where not job_queue.is_in_order(
            new.job_type, new.payload, new.sleep_seconds, new.message, new.queue, new.priority,
            new.run_at, new.max_attempts, new.retry_delay, new.retry_delay_max, new.max_losses,
            new.timeout, new.unique_key, new.concurrency_key, new.on_parent_failure,
            new.trace_context);

  with added as (
    insert into job_queue.jobs (
      id, status, claimable, job_type, payload, sleep_seconds, message, queue, priority, run_at,
      max_attempts, retry_delay, retry_delay_max, max_losses, timeout, unique_key, held_key,
      concurrency_key, depends_on, trace_context, seq
    )
    overriding system value
    select
      p_ids[new.position],
      case when cardinality(new.depends_on) > 0 then 'blocked' else 'queued' end,
      cardinality(new.depends_on) > 0 is not true, new.job_type, new.payload,
      new.sleep_seconds, new.message, new.queue, new.priority,
      case when new.run_at is null and new.delay is null then v_now
           else job_queue.start_time(new.run_at, new.delay) end,
      coalesce(new.max_attempts, queue.max_attempts, 1),
      coalesce(new.retry_delay, queue.retry_delay, '15 seconds'),
      coalesce(new.retry_delay_max, queue.retry_delay_max, '1 hour'),
      coalesce(new.max_losses, queue.max_losses, 3),
      coalesce(new.timeout, queue.timeout), new.unique_key, new.unique_key, new.concurrency_key,
      new.depends_on, new.trace_context, new.seq
      from (
        select given.*, nextval('job_queue.jobs_seq_seq') as seq
          from unnest(p_jobs) with ordinality as given (
            job_type, payload, sleep_seconds, message, queue, priority, run_at, delay,
            max_attempts, retry_delay, retry_delay_max, max_losses, timeout, unique_key,
            concurrency_key, depends_on, on_parent_failure, trace_context, position)
      ) as new
      left join job_queue.queues as queue on queue.queue = new.queue
     where p_open[new.position]
     order by new.queue, new.unique_key, new.position
    on conflict (queue, held_key) where held_key is not null do nothing
    returning jobs.id, jobs.status, jobs.queue, jobs.run_at
  ),
  recorded as (
    insert into job_queue.job_events (job_id, verb, to_status, detail)
    select added.id, 'enqueue', added.status, p_detail
      from added
  )
  select count(*)::integer, array_agg(added.queue) filter (
           where added.status = 'queued' and added.run_at <= clock_timestamp())
    into v_count, v_due
    from added;

  perform job_queue.wake_workers(v_due);
  return v_count;
end
$$;

comment on function job_queue.add_jobs(job_queue.new_job[], uuid[], boolean[], jsonb) is
  'Adds those of the jobs that p_open is true for, save those whose unique key is held, each '
  'under the id in its place in p_ids, and returns how many. Private to this schema. Errors: '
  'JQ001 for an argument out of range.';

revoke execute on function job_queue.add_jobs(job_queue.new_job[], uuid[], boolean[], jsonb)
  from public;
