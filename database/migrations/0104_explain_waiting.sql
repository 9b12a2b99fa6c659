-- depends: 0103_explain_job

-- Changes nothing.

create function job_queue.explain_waiting(
  p_job_id uuid
)
returns table (
  reason text,
  explanation text
)
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  with waiting as materialized (
    select job.*, queue.queue_id, coalesce(queue.paused, false) as paused,
           queue.concurrency_limit, queue.key_concurrency_limit, queue.rate_limit,
           queue.rate_period, clock_timestamp() as now,
           cardinality(job_queue.taken_slots(job.queue, null)) as running,
           cardinality(job_queue.taken_slots(job.queue, job.concurrency_key)) as running_of_key
      from job_queue.jobs as job
      left join job_queue.queues as queue on queue.queue = job.queue
     where job.id = p_job_id
  ),
  reasons as (
    select 'scheduled' as reason, case when attempts + losses = 0
             then format('it must not run before %s', run_at)
             else format('its next attempt is at %s, after %s of %s and %s losses',
                         run_at, attempts, max_attempts, losses) end as explanation
      from waiting where run_at > now
    union all
    select 'paused', format('queue %s is paused', queue) from waiting where paused
    union all
    select 'queue limit', format('queue %s runs %s jobs of at most %s at once',
             queue, running, concurrency_limit)
      from waiting where running >= concurrency_limit
    union all
    select 'key limit', format('queue %s runs %s jobs with the key %s of at most %s at once',
             queue, running_of_key, concurrency_key, key_concurrency_limit)
      from waiting
     where concurrency_key is not null and running_of_key >= key_concurrency_limit
    union all
    select 'rate limit', format('queue %s starts at most %s jobs within %s; the next at %s',
             queue, rate_limit, rate_period, used_until + step.wait)
      from waiting
     cross join lateral job_queue.tokens_used_until(queue_id, rate_period, now) as used_until
     cross join lateral make_interval(
       secs => extract(epoch from rate_period) / rate_limit) as step (wait)
     where used_until + step.wait > now
    union all
    select 'no worker', format('no worker that has been seen within a minute takes jobs of type '
             '%s in queue %s', job_type, queue)
      from waiting
     where not exists (
       select
         from job_queue.worker_sightings as worker
        where (worker.queues is null or waiting.queue = any (worker.queues))
          and (worker.job_types is null or waiting.job_type = any (worker.job_types))
          and (worker.seen_at > waiting.now - interval '1 minute'
               or exists (select from job_queue.claims as claim
                           where claim.worker = worker.worker
                             and claim.expires_at > waiting.now)))
       and not exists (
         select
           from job_queue.claims as claim
           join job_queue.jobs as running on running.id = claim.job_id
          where claim.expires_at > waiting.now
            and running.queue = waiting.queue
            and running.job_type = waiting.job_type)
  )
  select reasons.reason, reasons.explanation from reasons
$$;

comment on function job_queue.explain_waiting(uuid) is
  'What explain_job says of a queued job. Private to this schema.';

revoke execute on function job_queue.explain_waiting(uuid) from public;
