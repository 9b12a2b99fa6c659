-- Changes nothing: finds and locks the job that claim_next_job is about to take.

create function job_queue.lock_next_job(
  p_queues text[],
  p_job_types text[]
)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_queue text;
  v_job_id uuid;
begin
  if coalesce(cardinality(p_queues), 0) = 0 then
    perform job_queue.raise_invalid_argument(
      'queues', p_queues::text, 'Pass an array of at least one name.');
  end if;

  foreach v_queue in array p_queues loop
    for v_priority in 0..3 loop
      select job.id
        into v_job_id
        from job_queue.jobs as job
       where job.claimable
         and job.queue = v_queue
         and job.priority = v_priority
         and job.run_at <= v_now
         and (p_job_types is null or job.job_type = any (p_job_types))
       order by job.run_at, job.seq
       limit 1
         for update skip locked;
      if found then
        return v_job_id;
      end if;
    end loop;
  end loop;
  return null;
end
$$;

comment on function job_queue.lock_next_job(text[], text[]) is
  'Returns the id of the next job, its row locked, or null if nothing waits. Private to this '
  'schema.';

revoke execute on function job_queue.lock_next_job(text[], text[]) from public;
