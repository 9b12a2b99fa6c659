-- depends: 0137_unblock_jobs

-- Changes no status: gives jobs that were set aside their places in the queue again.

create or replace function job_queue.put_jobs_back(
  p_queue text,
  p_key text,
  p_count integer
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_count integer;
begin
  with locked as materialized (
    select job.id
      from job_queue.jobs as job
     where job.waits_for_key
       and job.queue = p_queue
       and job.concurrency_key = p_key
     order by job.priority, job.run_at, job.seq
     limit p_count
       for update skip locked
  )
  update job_queue.jobs as job
     set claimable = true,
         waits_for_key = false
    from locked
   where job.id = locked.id;

  get diagnostics v_count = row_count;
  if v_count > 0 then
    perform job_queue.wake_workers(array[p_queue]);
  end if;
  return v_count;
end
$$;

comment on function job_queue.put_jobs_back(text, text, integer) is
  'Makes the first p_count of the jobs that were set aside for this key claimable again, and '
  'returns how many there were. Private to this schema.';

revoke execute on function job_queue.put_jobs_back(text, text, integer) from public;
