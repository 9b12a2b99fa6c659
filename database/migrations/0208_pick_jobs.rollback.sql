-- Changes no status: finds and locks the jobs that claim_jobs is about to take.
--
-- Each priority is looked at by itself, so that jobs of a better priority whose time has not come
-- cost nothing. The plan is pinned to jobs_claimable_idx: one cached while the table was empty
-- would otherwise scan and sort the whole backlog on every claim after a burst. The limit stands in
-- the query that locks, which runs once for each priority: never more than p_limit are locked.

create or replace function job_queue.pick_jobs(
  p_limit integer,
  p_queues text[],
  p_job_types text[]
)
returns job_queue.pick[]
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
  v_queues text[] := coalesce(p_queues, job_queue.waiting_queues());
  v_picks job_queue.pick[] := array[]::job_queue.pick[];
  v_policy record;
begin
  for v_position in 1..cardinality(v_queues) loop
    exit when cardinality(v_picks) = p_limit;
    continue when v_queues[v_position] = any (v_queues[:v_position - 1]);

    select queue.paused,
           coalesce(queue.concurrency_limit, queue.key_concurrency_limit, queue.rate_limit)
             is not null as is_limited
      into v_policy
      from job_queue.queues as queue
     where queue.queue = v_queues[v_position];
    continue when v_policy.paused;

    if v_policy.is_limited then
      v_picks := v_picks || job_queue.pick_limited_jobs(
        v_queues[v_position], p_limit - cardinality(v_picks), p_job_types);
      continue;
    end if;
    for v_priority in 0..3 loop
      v_picks := v_picks || array(
        select row(job.id, job.attempts + 1, job.timeout, null, null, null, null)::job_queue.pick
          from job_queue.jobs as job
         where job.claimable
           and job.queue = v_queues[v_position]
           and job.priority = v_priority
           and job.run_at <= v_now
           and (p_job_types is null or job.job_type = any (p_job_types))
         order by job.run_at, job.seq
         limit p_limit - cardinality(v_picks)
           for update skip locked);
      exit when cardinality(v_picks) = p_limit;
    end loop;
  end loop;
  return v_picks;
end
$$;

comment on function job_queue.pick_jobs(integer, text[], text[]) is
  'The next jobs, at most p_limit, in order, their rows locked. Private to this schema.';

revoke execute on function job_queue.pick_jobs(integer, text[], text[]) from public;
