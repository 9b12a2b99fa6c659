-- depends: 0227_sampled_jobs

-- Changes nothing.
--
-- Reads the beginning of each lane, where the jobs are that are ready; and steps from queue to
-- queue among those that are set aside, which are all ready.

create function job_queue.waiting_jobs(
  p_limit integer
)
returns table (
  queue text,
  queued bigint,
  ready bigint,
  ready_since timestamptz
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
  with recursive set_aside as (
    select min(job.queue) as queue from job_queue.jobs as job where job.waits_for_key
    union all
    select (select min(job.queue) from job_queue.jobs as job
             where job.waits_for_key and job.queue > set_aside.queue)
      from set_aside where set_aside.queue is not null
  ),
  waiting as (
    select known.queue, job.run_at
      from unnest(job_queue.waiting_queues()) as known (queue)
     cross join unnest(job_queue.waiting_types(known.queue)) as lane (job_type)
     cross join generate_series(0, 3) as level (priority)
     cross join job_queue.first_of_lane(
       known.queue, lane.job_type, level.priority, 'infinity', p_limit) as job
    union all
    select set_aside.queue, first.run_at
      from set_aside
     cross join lateral (
       select job.run_at
         from job_queue.jobs as job
        where job.waits_for_key and job.queue = set_aside.queue
        limit p_limit
     ) as first
  )
  select waiting.queue, count(*), count(*) filter (where waiting.run_at <= clock_timestamp()),
         min(waiting.run_at) filter (where waiting.run_at <= clock_timestamp())
    from waiting
   group by waiting.queue
$$;

comment on function job_queue.waiting_jobs(integer) is
  'How many jobs are queued in each queue that has any, how many of them are ready and since when '
  'the first is. Of a lane it counts p_limit at most, and as many of those set aside in a queue. '
  'Private to this schema.';

revoke execute on function job_queue.waiting_jobs(integer) from public;
