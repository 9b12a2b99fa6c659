-- Changes no status: finds and locks the jobs that claim_jobs is about to take.

create function job_queue.pick_jobs(
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
as $$
declare
  v_queues text[] := coalesce(p_queues, job_queue.waiting_queues());
  v_job_types text[] := case
    when p_job_types is not null then array(select distinct unnest(p_job_types))
  end;
  v_picks job_queue.pick[] := array[]::job_queue.pick[];
  v_policy record;
  v_types text[];
begin
  if p_queues is null and cardinality(v_queues) > 1 then
    v_queues := job_queue.ready_queues(v_queues);
  end if;
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

    v_types := coalesce(v_job_types, job_queue.waiting_types(v_queues[v_position]));
    v_picks := v_picks || case when v_policy.is_limited
      then job_queue.pick_limited_jobs(
        v_queues[v_position], v_types, p_limit - cardinality(v_picks))
      else job_queue.pick_front(
        v_queues[v_position], v_types, p_limit - cardinality(v_picks))
    end;
  end loop;
  return v_picks;
end
$$;

comment on function job_queue.pick_jobs(integer, text[], text[]) is
  'The next jobs, at most p_limit, in order, their rows locked. Private to this schema.';

revoke execute on function job_queue.pick_jobs(integer, text[], text[]) from public;
