-- Changes nothing.
--
-- Ids sort by time of creation. So a time of creation bounds them: an id is made before created_at
-- is set, by microseconds, but in a batch that waits for a unique key by as long as it waits;
-- hence the five minutes. And no job has changed before it was created.
--
-- Where all the statuses that are asked for have indexes, and these hold few jobs, only those are
-- looked at. Where they hold many, the walk from the newest on meets them soon. So it is with a
-- unique key.

create function job_queue.find_jobs(
  p_limit integer,
  p_after uuid,
  p_statuses text[],
  p_queues text[],
  p_job_types text[],
  p_created_after timestamptz,
  p_created_before timestamptz,
  p_updated_after timestamptz,
  p_updated_before timestamptz,
  p_unique_key text,
  p_error text
)
returns uuid[]
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set max_parallel_workers_per_gather = 0
set jit = off
as $$
declare
  v_bound uuid := least(coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
    job_queue.first_id_of(least(p_created_before, p_updated_before) + interval '1 ms'));
  v_first uuid := job_queue.first_id_of(
    coalesce(p_created_after, '-infinity') - interval '5 minutes');
  v_statuses text[] := p_statuses;
  v_few uuid[];
begin
  if p_error is not null then
    v_statuses := array(
      select 'failed' where p_statuses is null or 'failed' = any (p_statuses));
  end if;
  if p_unique_key is not null then
    v_few := array(
      select job.id from job_queue.jobs as job where job.unique_key = p_unique_key limit 10001);
  elsif v_statuses <@ '{blocked,queued,running,failed}' then
    v_few := job_queue.jobs_by_status(v_statuses, p_queues, 10001);
  end if;

  if cardinality(v_few) <= 10000 then
    return array(
      select job.id
        from job_queue.jobs as job
       where job.id = any (v_few)
         and job.id < v_bound
         and job.id >= v_first
         and (v_statuses is null or job.status = any (v_statuses))
         and (p_queues is null or job.queue = any (p_queues))
         and (p_job_types is null or job.job_type = any (p_job_types))
         and (p_unique_key is null or job.unique_key = p_unique_key)
         and (p_error is null or strpos(job.result ->> 'error', p_error) > 0)
         and job.created_at >= coalesce(p_created_after, '-infinity')
         and job.created_at < coalesce(p_created_before, 'infinity')
         and job.updated_at >= coalesce(p_updated_after, '-infinity')
         and job.updated_at < coalesce(p_updated_before, 'infinity')
       order by job.id desc
       limit p_limit);
  end if;
  return array(
    select job.id
      from job_queue.jobs as job
     where job.id < v_bound
       and job.id >= v_first
       and (v_statuses is null or job.status = any (v_statuses))
       and (p_queues is null or job.queue = any (p_queues))
       and (p_job_types is null or job.job_type = any (p_job_types))
       and (p_unique_key is null or job.unique_key = p_unique_key)
       and (p_error is null or strpos(job.result ->> 'error', p_error) > 0)
       and job.created_at >= coalesce(p_created_after, '-infinity')
       and job.created_at < coalesce(p_created_before, 'infinity')
       and job.updated_at >= coalesce(p_updated_after, '-infinity')
       and job.updated_at < coalesce(p_updated_before, 'infinity')
     order by job.id desc
     limit p_limit);
end
$$;

comment on function job_queue.find_jobs(
  integer, uuid, text[], text[], text[], timestamptz, timestamptz, timestamptz, timestamptz, text,
  text
) is
  'The ids of what list_jobs returns, newest first. Private to this schema.';

revoke execute on function job_queue.find_jobs(
  integer, uuid, text[], text[], text[], timestamptz, timestamptz, timestamptz, timestamptz, text,
  text
) from public;
