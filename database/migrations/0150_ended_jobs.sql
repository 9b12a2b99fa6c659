-- depends: 0149_get_job

-- Changes nothing.
--
-- For one process that waits for jobs on behalf of many callers, and asks every few moments for all
-- of them: a look into the primary key for each, whatever the table has grown to.

create function job_queue.ended_jobs(
  p_job_ids uuid[]
)
returns setof uuid
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
  select given.id
    from unnest(p_job_ids) as given (id)
    left join job_queue.jobs as job on job.id = given.id
   where job.status is null
      or job.status in ('succeeded', 'failed', 'cancelled')
$$;

comment on function job_queue.ended_jobs(uuid[]) is
  'Those of these jobs that have succeeded, failed or been cancelled, or do not exist (any more): '
  'whoever waits for one need not wait any longer.';

revoke execute on function job_queue.ended_jobs(uuid[]) from public;

select job_queue.grant_roles();
