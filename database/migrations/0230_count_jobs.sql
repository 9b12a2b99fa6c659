-- depends: 0229_estimated_jobs

-- Changes nothing.
--
-- Granted to whoever may see queue_statistics: a view calls functions as whoever reads it.

create function job_queue.count_jobs()
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
  ended_last_hour bigint,
  estimated boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set max_parallel_workers_per_gather = 0
set jit = off
as $$
begin
  if exists (select from (select from job_queue.jobs as job
                           order by job.id offset 100000 limit 1) as beyond) then
    return query select estimate.*, true from job_queue.estimated_jobs() as estimate;
  else
    return query select counted.*, false from job_queue.sampled_jobs(null) as counted;
  end if;
end
$$;

comment on function job_queue.count_jobs() is
  'How many jobs each queue has, in every status, how many of them are ready and since when, and '
  'how many have ended lately: what the view queue_statistics shows. Counts all of up to 100,000 '
  'jobs, and of more reads a bounded part.';

revoke execute on function job_queue.count_jobs() from public;
