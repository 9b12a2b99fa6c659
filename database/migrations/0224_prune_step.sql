-- depends: 0223_prune_due

-- Changes no status: deletes jobs that ended long ago, with their events.
--
-- Walks along the primary key, whose order is that of creation, up to the first job that cannot
-- have ended long ago, because it is younger than the shortest retention. There it waits for jobs
-- to grow old. So what it looks at is what has just expired, however many jobs there are, and the
-- dead rows that vacuum has not yet removed lie behind it. What it had to leave behind, because it
-- is kept longer or was locked, it finds when it begins anew: every ten minutes or, if one step
-- takes it all the way, at the next. It needs no index that the end of a run would have to write.
--
-- Jobs that another transaction has locked, and those that a blocked one still waits for, are
-- passed over.

create function job_queue.prune_step(
  p_limit integer,
  out pruned integer,
  out is_done boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_clock bigint := (extract(epoch from v_now) * 1000000)::bigint;
  v_cursor bigint := coalesce(pg_sequence_last_value('job_queue.prune_cursor'), 0);
  v_from uuid := rpad(overlay(lpad(to_hex(v_cursor), 15, '0') placing '70008' from 13 for 0),
                      32, '0')::uuid;
  v_until uuid;
  v_next uuid;
  v_last uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid;
  v_awaited uuid[];
  v_ids uuid[];
  v_rows tid[];
begin
  select job_queue.first_id_of(v_now - least('7 days', min(queue.keep_succeeded),
                                             min(queue.keep_failed), min(queue.keep_cancelled)))
    into v_until from job_queue.queues as queue where queue.queue > '';
  select job.id into v_next
    from job_queue.jobs as job
   where job.id >= v_from order by job.id offset p_limit limit 1;
  v_awaited := array(
    select distinct dependency.parent_id
      from job_queue.job_dependencies as dependency
     where dependency.parent_id >= v_from and dependency.parent_id < coalesce(v_next, v_last));

  select array_agg(expired.id), array_agg(expired.ctid)
    into v_ids, v_rows
    from (
      select job.id, job.ctid
        from job_queue.jobs as job
        left join job_queue.queues as queue on queue.queue = job.queue
       where job.id >= v_from and job.id < coalesce(v_next, v_last)
         and job.updated_at < v_now - case job.status
               when 'succeeded' then coalesce(queue.keep_succeeded, '7 days')
               when 'failed' then coalesce(queue.keep_failed, '30 days')
               when 'cancelled' then coalesce(queue.keep_cancelled, '7 days')
             end
         and job.id <> all (v_awaited)
         for update of job skip locked) as expired;
  delete from job_queue.jobs as job where job.ctid = any (v_rows);
  delete from job_queue.job_events as event where event.job_id = any (v_ids);
  delete from job_queue.job_dependencies as dependency where dependency.job_id = any (v_ids);

  is_done := coalesce(v_next, v_last) >= v_until;
  if v_cursor = 0 then
    perform setval('job_queue.prune_due', v_clock + 600000000);
  end if;
  perform setval('job_queue.prune_cursor', case
    when is_done and (v_cursor = 0
                      or coalesce(pg_sequence_last_value('job_queue.prune_due'), 0)
                         not between v_clock and v_clock + 600000000) then 0
    else greatest(v_cursor + 1, ('x' || overlay(
      left(replace(least(v_next, v_until)::text, '-', ''), 20) placing '' from 13 for 5)
      )::bit(60)::bigint)
  end);
  pruned := coalesce(cardinality(v_ids), 0);
end
$$;

comment on function job_queue.prune_step(integer) is
  'One step of prune_jobs, which says what: looks at p_limit jobs, returns how many it deleted and '
  'whether there is nothing more to look at for now. Private to this schema.';

revoke execute on function job_queue.prune_step(integer) from public;
