-- depends: 0226_run_maintenance

-- Changes nothing.
--
-- The pages that it reads are evenly spaced: jobs that were enqueued one after the other lie side
-- by side, so pages picked at random would err more. And unlike the planner's statistics they are
-- never out of date.

create function job_queue.sampled_jobs(
  p_pages integer
)
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
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set max_parallel_workers_per_gather = 0
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_pages bigint := pg_relation_size('job_queue.jobs') / current_setting('block_size')::integer;
  v_step bigint := case when p_pages is null then 1
    else greatest((v_pages + p_pages - 1) / p_pages, 1) end;
begin
  return query
    select
      read.queue,
      v_step * count(*) filter (where read.status = 'blocked'),
      v_step * count(*) filter (where read.status = 'queued'),
      v_step * count(*) filter (where read.status = 'running'),
      v_step * count(*) filter (where read.status = 'succeeded'),
      v_step * count(*) filter (where read.status = 'failed'),
      v_step * count(*) filter (where read.status = 'cancelled'),
      v_step * count(*) filter (where read.status = 'queued' and read.run_at <= v_now),
      min(read.run_at) filter (where read.status = 'queued' and read.run_at <= v_now),
      v_step * count(*) filter (
        where read.status in ('succeeded', 'failed', 'cancelled')
          and read.updated_at > v_now - interval '1 minute'),
      v_step * count(*) filter (
        where read.status in ('succeeded', 'failed', 'cancelled')
          and read.updated_at > v_now - interval '1 hour')
      from (
        select job.queue, job.status, job.run_at, job.updated_at
          from job_queue.jobs as job
         where p_pages is null
        union all
        select found.*
          from generate_series(v_step / 2, v_pages - 1, v_step) as page (number)
         cross join lateral (
           select job.queue, job.status, job.run_at, job.updated_at
             from job_queue.jobs as job
            where job.ctid >= format('(%s,0)', page.number)::tid
              and job.ctid < format('(%s,0)', page.number + 1)::tid
           offset 0  -- keeps this a scan of one page
         ) as found
         where p_pages is not null
      ) as read
     group by read.queue;
end
$$;

comment on function job_queue.sampled_jobs(integer) is
  'How many jobs each queue has: counted, along the primary key, if p_pages is null, and otherwise '
  'estimated from that many pages of the table at most; exact if it has no more. Private to this '
  'schema.';

revoke execute on function job_queue.sampled_jobs(integer) from public;
