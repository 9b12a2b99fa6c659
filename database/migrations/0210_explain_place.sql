-- depends: 0209_recover_if_due

-- Changes nothing.

create or replace function job_queue.explain_place(
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
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
  select case ahead.count when 0 then 'next' else 'behind' end,
         case ahead.count when 0 then 'it is the first of its queue'
           else format('%s%s jobs of its queue come first',
                       case ahead.count when 1000 then 'at least ' end, ahead.count) end
    from job_queue.jobs as waiting
   cross join lateral (
     select count(*)
       from (
         select
           from generate_series(0, waiting.priority) as level (priority)
          cross join unnest(job_queue.waiting_types(waiting.queue)) as lane (job_type)
          cross join lateral job_queue.first_of_lane(
            waiting.queue, lane.job_type, level.priority, clock_timestamp(), 1001) as job
          where (level.priority, job.run_at, job.seq)
                < (waiting.priority, waiting.run_at, waiting.seq)
          limit 1000
       ) as bounded
   ) as ahead
   where waiting.id = p_job_id
     and waiting.run_at <= clock_timestamp()
$$;

comment on function job_queue.explain_place(uuid) is
  'How many jobs come before a queued job whose time has come. Private to this schema.';

revoke execute on function job_queue.explain_place(uuid) from public;
