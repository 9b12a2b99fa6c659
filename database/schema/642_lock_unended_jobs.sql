-- Changes nothing: locks what cancel_jobs is going to cancel.
--
-- Looks for it where claim_next_job and recovery do, in the indexes of the waiting jobs, the
-- dependencies and the claims, never among the jobs that have ended. Those that wait come first,
-- so that a worker which is told to stop does not find the next of them.
--
-- A dependency outlives the cancelling of its job by a moment, hence the status beside each. The
-- jobs are looked up one by one, because a join might begin at the other end.

create function job_queue.lock_unended_jobs(
  p_queue text,
  p_job_type text,
  p_status text,
  p_unique_key text,
  p_created_after timestamptz,
  p_created_before timestamptz,
  p_limit integer,
  p_within_queues text[]
)
returns uuid[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_last_queue text := coalesce(p_queue, greatest(
    (select max(job.queue) from job_queue.jobs as job where job.claimable),
    (select max(job.queue) from job_queue.jobs as job where job.waits_for_key)));
begin
  return array(
    select job.id
      from (
        select waiting.id, 'queued'
          from job_queue.jobs as waiting
         where waiting.claimable
           and waiting.queue between coalesce(p_queue, '') and v_last_queue
           and p_unique_key is null and coalesce(p_status, 'queued') = 'queued'
        union all
        select waiting.id, 'queued'
          from job_queue.jobs as waiting
         where waiting.waits_for_key
           and waiting.queue between coalesce(p_queue, '') and v_last_queue
           and p_unique_key is null and coalesce(p_status, 'queued') = 'queued'
        union all
        select distinct dependency.job_id, 'blocked'
          from job_queue.job_dependencies as dependency
         where p_unique_key is null and coalesce(p_status, 'blocked') = 'blocked'
        union all
        select claim.job_id, 'running'
          from job_queue.claims as claim
         where p_unique_key is null and coalesce(p_status, 'running') = 'running'
        union all
        select holder.id, holder.status
          from job_queue.jobs as holder
         where holder.held_key = p_unique_key
      ) as found (id, status)
     cross join lateral (
       select locked.id
         from job_queue.jobs as locked
        where locked.id = found.id
          and locked.status = found.status
          and (p_status is null or locked.status = p_status)
          and (p_queue is null or locked.queue = p_queue)
          and (p_within_queues is null or locked.queue = any (p_within_queues))
          and (p_job_type is null or locked.job_type = p_job_type)
          and locked.created_at >= coalesce(p_created_after, '-infinity')
          and locked.created_at < coalesce(p_created_before, 'infinity')
          and not locked.cancel_requested
          for no key update skip locked
     ) as job
     limit p_limit);
end
$$;

comment on function job_queue.lock_unended_jobs(
  text, text, text, text, timestamptz, timestamptz, integer, text[]
) is
  'Locks up to p_limit jobs that are blocked, queued or running and match all that is given, save '
  'those that another transaction has locked or that were asked to stop already, and returns them. '
  'Private to this schema.';

revoke execute on function job_queue.lock_unended_jobs(
  text, text, text, text, timestamptz, timestamptz, integer, text[]
) from public;
