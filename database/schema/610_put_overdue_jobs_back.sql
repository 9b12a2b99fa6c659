-- Changes no status.
--
-- What the end of a run could not put back itself: the job was being set aside just then, or the
-- limit has been raised since. Steps from one key to the next in the index, on from where the last
-- call ended.
--
-- Of a key that runs nothing all are put back, not as many as may run: the first of them may be of
-- types for which no worker asks.

create function job_queue.put_overdue_jobs_back(
  p_limit integer default 1000,
  p_jobs integer default 200
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_lane record;
  v_policy record;
  v_seen integer := coalesce(pg_sequence_last_value('job_queue.put_back_cursor'), 0)::integer;
  v_taken integer;
  v_turns integer := 0;
  v_count integer := 0;
begin
  select '' as queue, '' as concurrency_key into v_lane;
  for v_turn in 1..v_seen + p_limit loop
    select job.queue, job.concurrency_key
      into v_lane
      from job_queue.jobs as job
     where job.waits_for_key
       and (job.queue, job.concurrency_key) > (v_lane.queue, v_lane.concurrency_key)
     order by job.queue, job.concurrency_key
     limit 1;
    exit when not found;
    v_turns := v_turn;
    continue when v_turn <= v_seen;

    select queue.paused, queue.key_concurrency_limit
      into v_policy
      from job_queue.queues as queue
     where queue.queue = v_lane.queue;
    continue when v_policy.paused;

    v_taken := cardinality(job_queue.taken_slots(v_lane.queue, v_lane.concurrency_key));
    v_count := v_count + job_queue.put_jobs_back(
      v_lane.queue, v_lane.concurrency_key, least(p_jobs - v_count, case v_taken
        when 0 then p_jobs
        else greatest(coalesce(v_policy.key_concurrency_limit, p_jobs) - v_taken, 0)
      end));
    exit when v_count >= p_jobs;
  end loop;
  perform setval('job_queue.put_back_cursor',
                 case when v_lane.queue is null then 0 else greatest(v_turns, v_seen) end);
  return v_count;
end
$$;

comment on function job_queue.put_overdue_jobs_back(integer, integer) is
  'Puts back, of the jobs that were set aside, as many of each key as may run, or all if none '
  'runs; looks at p_limit keys and puts p_limit jobs back at most. Private to this schema.';

revoke execute on function job_queue.put_overdue_jobs_back(integer, integer) from public;
