-- Changes nothing.
--
-- Looks at one job of each lane: its cost depends on the number of lanes, not of jobs.

create function job_queue.ready_queues(
  p_queues text[]
)
returns text[]
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
  select array(
    select given.queue
      from unnest(p_queues) as given (queue)
     cross join lateral (
       select level.priority, job.run_at, job.seq
         from generate_series(0, 3) as level (priority)
        cross join unnest(job_queue.waiting_types(given.queue)) as lane (job_type)
        cross join lateral job_queue.first_of_lane(
          given.queue, lane.job_type, level.priority, clock_timestamp(), 1) as job
        order by level.priority, job.run_at, job.seq
        limit 1
     ) as first
     order by first.priority, first.run_at, first.seq)
$$;

comment on function job_queue.ready_queues(text[]) is
  'Those of these queues that have a job whose time has come; the one with the first such job '
  'first. Private to this schema.';

revoke execute on function job_queue.ready_queues(text[]) from public;
