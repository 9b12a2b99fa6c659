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

-- Changes no status: pick_jobs for a queue that has a limit.
--
-- A job whose concurrency key is at its limit is set aside, with those like it at the front, and
-- the queue is looked at again: no key can stand in the way of another.

create function job_queue.pick_limited_jobs(
  p_queue text,
  p_limit integer,
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
  v_policy record;
  v_now timestamptz := clock_timestamp();
  v_wanted integer;
  v_queue_slots integer[];
  v_picks job_queue.pick[] := array[]::job_queue.pick[];
  v_full uuid[];
  v_job record;
  v_key_slot integer;
begin
  select * into v_policy from job_queue.queues as queue where queue.queue = p_queue;
  v_wanted := least(p_limit, job_queue.spend_tokens(
    v_policy.queue_id, v_policy.rate_limit, v_policy.rate_period, 0));
  if v_policy.concurrency_limit is not null then
    v_queue_slots := job_queue.free_slots(
      p_queue, null, v_policy.concurrency_limit,
      job_queue.count_waiting(p_queue, p_job_types, v_wanted));
    v_wanted := cardinality(v_queue_slots);
  end if;

  for v_priority in 0..3 loop
    loop
      v_full := '{}';
      for v_job in
        select job.id, job.attempts, job.timeout, case
                 when v_policy.key_concurrency_limit is not null then job.concurrency_key
               end as limited_key
          from job_queue.jobs as job
         where job.claimable
           and job.queue = p_queue
           and job.priority = v_priority
           and job.run_at <= v_now
           and (p_job_types is null or job.job_type = any (p_job_types))
           and job.id <> all (array(select pick.job_id from unnest(v_picks) as pick))
         order by job.run_at, job.seq
         limit v_wanted - cardinality(v_picks)
           for update skip locked
      loop
        v_key_slot := job_queue.free_key_slot(
          p_queue, v_job.limited_key, v_policy.key_concurrency_limit, v_picks);
        if v_job.limited_key is not null and v_key_slot is null then
          v_full := v_full || v_job.id;
          continue;
        end if;
        v_picks := v_picks || row(v_job.id, v_job.attempts + 1, v_job.timeout, p_queue,
          v_job.limited_key, v_queue_slots[cardinality(v_picks) + 1], v_key_slot)::job_queue.pick;
      end loop;
      exit when v_full = '{}';
      perform job_queue.set_jobs_aside(
        p_queue, v_priority, v_full, array(select pick.job_id from unnest(v_picks) as pick));
    end loop;
  end loop;

  perform job_queue.spend_tokens(
    v_policy.queue_id, v_policy.rate_limit, v_policy.rate_period, cardinality(v_picks));
  return v_picks;
end
$$;

comment on function job_queue.pick_limited_jobs(text, integer, text[]) is
  'What pick_jobs returns, of one queue, within its limits. Private to this schema.';

revoke execute on function job_queue.pick_limited_jobs(text, integer, text[]) from public;
