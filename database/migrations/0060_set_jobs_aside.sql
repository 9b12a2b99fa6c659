-- depends: 0059_spend_tokens

-- Changes no status: takes jobs whose concurrency key is at its limit out of the way of others.
--
-- So that a long line of them costs the claims behind it nothing, those with the same keys that
-- stand among the first thousand go along.

create function job_queue.set_jobs_aside(
  p_queue text,
  p_priority integer,
  p_job_ids uuid[],
  p_except uuid[]
)
returns void
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
  with met as materialized (
    select job.id, job.concurrency_key
      from job_queue.jobs as job
     where job.id = any (p_job_ids)
  ),
  front as materialized (
    select job.id, job.concurrency_key
      from job_queue.jobs as job
     where job.claimable
       and job.queue = p_queue
       and job.priority = p_priority
       and job.run_at <= clock_timestamp()
     order by job.run_at, job.seq
     limit 1000
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

comment on function job_queue.set_jobs_aside(text, integer, uuid[], uuid[]) is
  'Sets these jobs aside until put_jobs_back, and the foremost others with the same keys, save '
  'p_except. Private to this schema.';

revoke execute on function job_queue.set_jobs_aside(text, integer, uuid[], uuid[]) from public;
