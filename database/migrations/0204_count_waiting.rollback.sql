-- Changes nothing.

create or replace function job_queue.count_waiting(
  p_queue text,
  p_job_types text[],
  p_limit integer
)
returns integer
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  select count(*)
    from (
      select
        from job_queue.jobs as job
       where job.claimable
         and job.queue = p_queue
         and job.priority in (0, 1, 2, 3)
         and job.run_at <= clock_timestamp()
         and (p_job_types is null or job.job_type = any (p_job_types))
       limit p_limit
    ) as bounded
$$;

comment on function job_queue.count_waiting(text, text[], integer) is
  'How many jobs of the queue and of these types wait to be claimed, or p_limit if there are more. '
  'Private to this schema.';

revoke execute on function job_queue.count_waiting(text, text[], integer) from public;
