-- Changes nothing.
--
-- No index has the status of a job, but each status that a job does not stay in for long has one
-- that holds its jobs and few others: the claims, the waiting jobs, the dependencies, and the dead
-- letters.

create function job_queue.jobs_by_status(
  p_statuses text[],
  p_queues text[],
  p_limit integer
)
returns uuid[]
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
  select array(
    select claim.job_id
      from job_queue.claims as claim
     where 'running' = any (p_statuses)
    union all
    select job.id
      from job_queue.jobs as job
     where 'queued' = any (p_statuses)
       and p_queues is null
       and job.claimable
    union all
    select job.id
      from job_queue.jobs as job
     where 'queued' = any (p_statuses)
       and p_queues is null
       and job.waits_for_key
    union all
    select job.id
      from unnest(p_queues) as asked (queue)
      join job_queue.jobs as job on job.queue = asked.queue and job.claimable
     where 'queued' = any (p_statuses)
    union all
    select job.id
      from unnest(p_queues) as asked (queue)
      join job_queue.jobs as job on job.queue = asked.queue and job.waits_for_key
     where 'queued' = any (p_statuses)
    union all
    select distinct dependency.job_id
      from job_queue.job_dependencies as dependency
     where 'blocked' = any (p_statuses)
    union all
    select job.id
      from job_queue.jobs as job
     where 'failed' = any (p_statuses)
       and job.failed_at is not null
       and (p_queues is null or job.queue = any (p_queues))
     limit p_limit)
$$;

comment on function job_queue.jobs_by_status(text[], text[], integer) is
  'Up to p_limit jobs, and among them, if they are fewer, all that are blocked, queued, running or '
  'failed, whichever of these p_statuses names. Some may be of other queues. Private to this '
  'schema.';

revoke execute on function job_queue.jobs_by_status(text[], text[], integer) from public;
