-- Changes no status: deletes jobs that ended long ago, with their events.
--
-- Walks along the primary key, whose order is that of creation, p_limit jobs at a time and on from
-- there at the next call. A job that is younger than the shortest retention cannot have ended long
-- ago, so the walk begins anew when it comes to one. It needs no index that the end of a run would
-- have to write.
--
-- Jobs that another transaction has locked, and those that a blocked one still waits for, are
-- passed over.

create or replace function job_queue.prune_jobs(
  p_limit integer default 1000
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_cursor bigint := coalesce(pg_sequence_last_value('job_queue.prune_cursor'), 0);
  v_shortest interval;
  v_seen record;
  v_pruned uuid[];
begin
  select least('7 days', min(queue.keep_succeeded), min(queue.keep_failed),
               min(queue.keep_cancelled))
    into v_shortest
    from job_queue.queues as queue
   where queue.queue > '';

  select count(*) as rows, max(front.created_at) as created_at, array_agg(front.id) as ids,
         max(('x' || overlay(left(replace(front.id::text, '-', ''), 20) placing '' from 13 for 5))
               ::bit(60)::bigint) as position
    into v_seen
    from (
      select job.id, job.created_at
        from job_queue.jobs as job
       where job.id >= rpad(overlay(lpad(to_hex(v_cursor), 15, '0') placing '70008' from 13 for 0),
                            32, '0')::uuid
       order by job.id
       limit p_limit
    ) as front;

  v_pruned := array(
    select job.id
      from job_queue.jobs as job
      left join job_queue.queues as queue on queue.queue = job.queue
     where job.id = any (v_seen.ids)
       and job.updated_at < v_now - case job.status
             when 'succeeded' then coalesce(queue.keep_succeeded, '7 days')
             when 'failed' then coalesce(queue.keep_failed, '30 days')
             when 'cancelled' then coalesce(queue.keep_cancelled, '7 days')
           end
       and not exists (
         select from job_queue.job_dependencies as dependency where dependency.parent_id = job.id)
       for update of job skip locked);
  delete from job_queue.jobs as job where job.id = any (v_pruned);
  delete from job_queue.job_events as event where event.job_id = any (v_pruned);
  delete from job_queue.job_dependencies as dependency where dependency.job_id = any (v_pruned);

  perform setval('job_queue.prune_cursor', case
    when v_seen.rows < p_limit or v_seen.created_at > v_now - v_shortest then 0
    else greatest(v_seen.position, v_cursor + 1)
  end);
  return cardinality(v_pruned);
end
$$;

comment on function job_queue.prune_jobs(integer) is
  'Deletes jobs that have ended longer ago than their queues keep them (keep_succeeded, '
  'keep_failed, keep_cancelled), with their histories. Looks at p_limit jobs, oldest first, and '
  'goes on from there at the next call. Returns how many it deleted.';

revoke execute on function job_queue.prune_jobs(integer) from public;
