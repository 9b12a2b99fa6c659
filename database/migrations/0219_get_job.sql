-- depends: 0218_jobs_change_status

-- Changes nothing.
--
-- Volatile only so that a statement which enqueues a job can read it back: `select job.* from
-- enqueue_job() as id cross join lateral get_job(id) as job`. In plpgsql, which keeps its plan from
-- one call to the next: in SQL, planning would take longer than all else.

create or replace function job_queue.get_job(
  p_job_id uuid
)
returns table (
  id uuid,
  status text,
  sleep_seconds integer,
  message text,
  result jsonb,
  created_at timestamptz,
  updated_at timestamptz,
  job_type text,
  payload jsonb,
  queue text,
  priority smallint,
  run_at timestamptz,
  attempts integer,
  max_attempts integer,
  losses integer,
  max_losses integer,
  timeout interval,
  unique_key text,
  concurrency_key text,
  depends_on uuid[],
  cancel_requested boolean,
  failed_at timestamptz,
  worker text,
  progress jsonb,
  retry_delay interval,
  retry_delay_max interval,
  trace_context jsonb
)
language plpgsql
volatile
security definer
rows 1
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  return query
    select
      job.id,
      job.status,
      job.sleep_seconds,
      job.message,
      job.result,
      job.created_at,
      job.updated_at,
      job.job_type,
      job.payload,
      job.queue,
      job.priority,
      job.run_at,
      job.attempts,
      job.max_attempts,
      job.losses,
      job.max_losses,
      job.timeout,
      job.unique_key,
      job.concurrency_key,
      job.depends_on,
      job.cancel_requested,
      job.failed_at,
      claim.worker,
      claim.progress,
      job.retry_delay,
      job.retry_delay_max,
      job.trace_context
      from job_queue.jobs as job
      left join job_queue.claims as claim on claim.job_id = job.id
     where job.id = p_job_id;
end
$$;

comment on function job_queue.get_job(uuid) is
  'The job with this id and, while it runs, its worker and how far that has come. No row: there is '
  'no such job.';

revoke execute on function job_queue.get_job(uuid) from public;
