-- Changes no status: takes jobs whose concurrency key is at its limit out of the way of others.
--
-- So that a long line of them costs the claims behind it nothing, those with the same keys that
-- stand among the first thousand of the same lanes go along.

create function job_queue.set_jobs_aside(
  p_queue text,
  p_job_ids uuid[],
  p_except uuid[]
)
returns void
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
  with met as materialized (
    select job.id, job.concurrency_key, job.job_type, job.priority
      from job_queue.jobs as job
     where job.id = any (p_job_ids)
  ),
  front as materialized (
    select job.id, job.concurrency_key
      from (select distinct met.job_type, met.priority from met) as lane
     cross join lateral job_queue.first_of_lane(
       p_queue, lane.job_type, lane.priority, clock_timestamp(), 1000) as job
  ),
  locked as materialized (
    select job.id
      from job_queue.jobs as job
     where job.id = any (array(
             select met.id from met
             union
             select front.id from front
              where front.concurrency_key in (select met.concurrency_key from met)
                and front.id <> all (p_except)))
       and job.claimable
       for update skip locked
  )
  update job_queue.jobs as job
     set claimable = false,
         waits_for_key = true
    from locked
   where job.id = locked.id
$$;

comment on function job_queue.set_jobs_aside(text, uuid[], uuid[]) is
  'Sets these jobs aside until put_jobs_back, and the foremost others with the same keys, save '
  'p_except. Private to this schema.';

revoke execute on function job_queue.set_jobs_aside(text, uuid[], uuid[]) from public;
