-- depends: 0077_fail_jobs

-- blocked -> queued or cancelled
--
-- What the end of a parent could not settle itself: the child was locked, had been enqueued but not
-- committed when the parent looked, or was one of too many.

create function job_queue.settle_overdue_dependencies(
  p_limit integer default 3000
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
as $$
declare
  v_seen record;
begin
  select count(*) as rows, max(seen.dependency_id) as last_id,
         array_agg(seen.parent_id) filter (where seen.is_over) as ended
    into v_seen
    from (
      select dependency.dependency_id, dependency.parent_id,
             parent.status is null or parent.status in ('succeeded', 'failed', 'cancelled')
               as is_over
        from job_queue.job_dependencies as dependency
        left join job_queue.jobs as parent on parent.id = dependency.parent_id
       where dependency.dependency_id > coalesce(
               pg_sequence_last_value('job_queue.dependency_cursor'), 0)
       order by dependency.dependency_id
       limit p_limit
    ) as seen;

  perform setval('job_queue.dependency_cursor',
                 case when v_seen.rows = p_limit then v_seen.last_id else 0 end);
  return job_queue.settle_dependencies(v_seen.ended, p_limit);
end
$$;

comment on function job_queue.settle_overdue_dependencies(integer) is
  'Settles what job_dependencies has of parents that have ended. Looks at p_limit rows, and goes '
  'on from there at the next call. Private to this schema.';

revoke execute on function job_queue.settle_overdue_dependencies(integer) from public;
