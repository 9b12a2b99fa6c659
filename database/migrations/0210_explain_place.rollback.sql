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
           from job_queue.jobs as job
          where job.claimable
            and job.queue = waiting.queue
            and (job.priority, job.run_at, job.seq)
                < (waiting.priority, waiting.run_at, waiting.seq)
            and job.run_at <= clock_timestamp()
          limit 1000
       ) as bounded
   ) as ahead
   where waiting.id = p_job_id
     and waiting.run_at <= clock_timestamp()
$$;

comment on function job_queue.explain_place(uuid) is
  'How many jobs come before a queued job whose time has come. Private to this schema.';

revoke execute on function job_queue.explain_place(uuid) from public;
