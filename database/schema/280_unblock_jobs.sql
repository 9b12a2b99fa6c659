-- blocked -> queued

create function job_queue.unblock_jobs(
  p_job_ids uuid[]
)
returns void
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
  with unblocked as (
    update job_queue.jobs as job
       set status = 'queued',
           claimable = true,
           updated_at = clock_timestamp()
     where job.id = any (p_job_ids)
       and job.status = 'blocked'
       and not exists (
         select
           from job_queue.job_dependencies as dependency
          where dependency.job_id = job.id)
    returning job.id, job.queue, job.run_at
  ),
  recorded as (
    insert into job_queue.job_events (job_id, verb, from_status, to_status)
    select unblocked.id, 'unblock', 'blocked', 'queued'
      from unblocked
  )
  select job_queue.wake_workers(array_agg(unblocked.queue))
    from unblocked
   where unblocked.run_at <= clock_timestamp()
  having count(*) > 0
$$;

comment on function job_queue.unblock_jobs(uuid[]) is
  'Queues those of these jobs that are blocked and have nothing left to wait for. The caller has '
  'locked them. Private to this schema.';

revoke execute on function job_queue.unblock_jobs(uuid[]) from public;
