-- Changes nothing.
--
-- Steps from one queue to the next in the index, and looks at one job for each queue and priority:
-- its cost depends on the number of queues, not of jobs.

create or replace function job_queue.waiting_queues()
returns text[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = on
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  return array(
    with recursive lanes as (
      (select job.queue from job_queue.jobs as job where job.claimable order by job.queue limit 1)
      union all
      select (
        select job.queue
          from job_queue.jobs as job
         where job.claimable
           and job.queue > lanes.queue
         order by job.queue
         limit 1
      )
        from lanes
       where lanes.queue is not null
    )
    select lanes.queue
      from lanes
     cross join lateral (
       select level.priority, first.run_at, first.seq
         from generate_series(0, 3) as level (priority)
        cross join lateral (
          select job.run_at, job.seq
            from job_queue.jobs as job
           where job.claimable
             and job.queue = lanes.queue
             and job.priority = level.priority
             and job.run_at <= v_now
           order by job.run_at, job.seq
           limit 1
        ) as first
        limit 1
     ) as head
     order by head.priority, head.run_at, head.seq
  );
end
$$;

comment on function job_queue.waiting_queues() is
  'The queues that have a job whose time has come; the one with the first such job first. Private '
  'to this schema.';

revoke execute on function job_queue.waiting_queues() from public;
