-- depends: 0228_waiting_jobs

-- Changes nothing: what count_jobs returns of a table that is too long to be read.
--
-- What an index leads to is counted, up to some thousands, and so are the last of the events. What
-- is more than that is taken from the sample, and so is what no index leads to.

create function job_queue.estimated_jobs()
returns table (
  queue text,
  blocked bigint,
  queued bigint,
  running bigint,
  succeeded bigint,
  failed bigint,
  cancelled bigint,
  ready bigint,
  ready_since timestamptz,
  ended_last_minute bigint,
  ended_last_hour bigint
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_many integer := 5000;
  v_blocked uuid[] := job_queue.jobs_by_status('{blocked}', null, v_many + 1);
  v_running uuid[] := job_queue.jobs_by_status('{running}', null, v_many + 1);
  v_failed uuid[] := job_queue.jobs_by_status('{failed}', null, v_many + 1);
begin
  return query
    with sampled as materialized (select * from job_queue.sampled_jobs(2000)),
    waiting as materialized (select * from job_queue.waiting_jobs(v_many)),
    kept as materialized (
      select job.queue,
             count(*) filter (where job.status = 'blocked') as blocked,
             count(*) filter (where job.status = 'running') as running,
             count(*) filter (where job.status = 'failed') as failed
        from unnest(v_blocked || v_running || v_failed) as known (id)
        join job_queue.jobs as job on job.id = known.id
       group by job.queue
    ),
    last as materialized (
      select event.job_id, event.at, event.to_status
        from job_queue.job_events as event order by event.event_id desc limit 2 * v_many
    ),
    reach as materialized (
      select case when count(*) = 2 * v_many then min(last.at) end as since from last
    ),
    ended as materialized (
      select job.queue, count(*) as in_hour,
             count(*) filter (where last.at > v_now - interval '1 minute') as in_minute
        from last join job_queue.jobs as job on job.id = last.job_id
       where last.to_status in ('succeeded', 'failed', 'cancelled')
         and last.at > v_now - interval '1 hour'
       group by job.queue
    )
    select named.queue,
      greatest(kept.blocked, case when cardinality(v_blocked) > v_many then sampled.blocked end, 0),
      greatest(waiting.queued, case when waiting.queued >= v_many then sampled.queued end, 0),
      greatest(kept.running, case when cardinality(v_running) > v_many then sampled.running end, 0),
      coalesce(sampled.succeeded, 0),
      greatest(kept.failed, case when cardinality(v_failed) > v_many then sampled.failed end, 0),
      coalesce(sampled.cancelled, 0),
      greatest(waiting.ready, case when waiting.ready >= v_many then sampled.ready end, 0),
      waiting.ready_since,
      greatest(ended.in_minute, case when reach.since > v_now - interval '1 minute'
                                     then sampled.ended_last_minute end, 0),
      greatest(ended.in_hour, case when reach.since > v_now - interval '1 hour'
                                   then sampled.ended_last_hour end, 0)
      from (select policy.queue from job_queue.queues as policy
            union select total.queue from job_queue.event_totals as total
            union select waiting.queue from waiting
            union select kept.queue from kept
            union select ended.queue from ended
            union select sampled.queue from sampled) as named
     cross join reach
      left join sampled on sampled.queue = named.queue
      left join waiting on waiting.queue = named.queue
      left join kept on kept.queue = named.queue
      left join ended on ended.queue = named.queue;
end
$$;

comment on function job_queue.estimated_jobs() is
  'What count_jobs returns, from a bounded part of each table. Private to this schema.';

revoke execute on function job_queue.estimated_jobs() from public;
