-- Changes nothing: locks what retry_jobs is going to retry.

create function job_queue.lock_dead_jobs(
  p_queue text,
  p_job_type text,
  p_error text,
  p_failed_after timestamptz,
  p_failed_before timestamptz,
  p_limit integer,
  p_within_queues text[]
)
returns uuid[]
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
  select array(
    select job.id
      from job_queue.jobs as job
     where job.failed_at is not null
       and job.failed_at >= coalesce(p_failed_after, '-infinity')
       and job.failed_at < coalesce(p_failed_before, 'infinity')
       and (p_queue is null or job.queue = p_queue)
       and (p_within_queues is null or job.queue = any (p_within_queues))
       and (p_job_type is null or job.job_type = p_job_type)
       and (p_error is null or strpos(job.result ->> 'error', p_error) > 0)
     order by job.failed_at, job.id
     limit p_limit
       for update skip locked)
$$;

comment on function job_queue.lock_dead_jobs(
  text, text, text, timestamptz, timestamptz, integer, text[]
) is
  'The failed jobs that match, the first to fail first, p_limit at most, locked; those that '
  'another transaction has locked are passed over. Private to this schema.';

revoke execute on function job_queue.lock_dead_jobs(
  text, text, text, timestamptz, timestamptz, integer, text[]
) from public;
