-- Changes nothing.
--
-- Volatile for the reason that get_job is: a statement that sets a policy can read it back.
--
-- Steps from one queue to the next in the indexes of the waiting jobs; looks at each running and
-- blocked job. It never walks the jobs that have ended.

create function job_queue.list_queues(
  p_queue text default null,
  p_within_queues text[] default null
)
returns table (
  queue text,
  paused boolean,
  concurrency_limit integer,
  key_concurrency_limit integer,
  rate_limit integer,
  rate_period interval,
  max_attempts integer,
  retry_delay interval,
  retry_delay_max interval,
  max_losses integer,
  timeout interval,
  keep_succeeded interval,
  keep_failed interval,
  keep_cancelled interval
)
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
  with recursive waiting as (
    select min(job.queue) as queue from job_queue.jobs as job where job.claimable
    union all
    select (select min(job.queue) from job_queue.jobs as job
             where job.claimable and job.queue > waiting.queue)
      from waiting where waiting.queue is not null
  ),
  set_aside as (
    select min(job.queue) as queue from job_queue.jobs as job where job.waits_for_key
    union all
    select (select min(job.queue) from job_queue.jobs as job
             where job.waits_for_key and job.queue > set_aside.queue)
      from set_aside where set_aside.queue is not null
  ),
  named as materialized (
    select p_queue as queue
    union
    select policy.queue from job_queue.queues as policy where p_queue is null
    union
    select waiting.queue from waiting where p_queue is null
    union
    select set_aside.queue from set_aside where p_queue is null
    union
    select (select job.queue from job_queue.jobs as job where job.id = claim.job_id)
      from job_queue.claims as claim
     where p_queue is null
    union
    select (select job.queue from job_queue.jobs as job where job.id = dependency.job_id)
      from job_queue.job_dependencies as dependency
     where p_queue is null
  )
  select named.queue, coalesce(policy.paused, false), policy.concurrency_limit,
         policy.key_concurrency_limit, policy.rate_limit,
         coalesce(policy.rate_period, '1 minute'), coalesce(policy.max_attempts, 1),
         coalesce(policy.retry_delay, '15 seconds'), coalesce(policy.retry_delay_max, '1 hour'),
         coalesce(policy.max_losses, 3), policy.timeout,
         coalesce(policy.keep_succeeded, '7 days'), coalesce(policy.keep_failed, '30 days'),
         coalesce(policy.keep_cancelled, '7 days')
    from named
    left join job_queue.queues as policy on policy.queue = named.queue
   where named.queue is not null
     and (p_within_queues is null or named.queue = any (p_within_queues))
   order by named.queue
$$;

comment on function job_queue.list_queues(text, text[]) is
  'The policy of each queue that has one or has a job which has not ended, by name, or of p_queue, '
  'whatever it has. Where a queue has no policy of its own the default is shown; a limit or a '
  'timeout that is null is none. p_within_queues: of no queues but these.';

revoke execute on function job_queue.list_queues(text, text[]) from public;
