-- depends: 0055_spend_tokens

-- Changes no status: takes jobs whose concurrency key is at its limit out of the way of others.
--
-- So that a long line of them costs the claims behind it nothing, those that stand among the first
-- thousand go along.

create function job_queue.set_jobs_aside(
  p_queue text,
  p_priority integer,
  p_keys text[],
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
  with front as materialized (
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
      from front
      join job_queue.jobs as job on job.id = front.id
     where front.concurrency_key = any (p_keys)
       and front.id <> all (p_except)
       and job.claimable
       for update of job skip locked
  )
  update job_queue.jobs as job
     set claimable = false,
         waits_for_key = true
    from locked
   where job.id = locked.id
$$;

comment on function job_queue.set_jobs_aside(text, integer, text[], uuid[]) is
  'Sets the foremost jobs with these keys aside until put_jobs_back, save p_except. Private to this '
  'schema.';

revoke execute on function job_queue.set_jobs_aside(text, integer, text[], uuid[]) from public;
