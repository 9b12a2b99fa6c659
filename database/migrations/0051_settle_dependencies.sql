-- depends: 0050_enqueue_jobs

-- blocked -> queued or cancelled
--
-- Called by whatever ends a job, in the same transaction, and by recovery for what that could not
-- do. It waits for nobody: a blocked job that another transaction has locked, because another of
-- its parents is just ending, is left to recovery, and so is what comes after p_limit. So neither
-- the end of a run nor a cancel can be held up or deadlock here.
--
-- Each turn of the loop takes the parents that have ended; those of their children that this
-- cancels are the parents of the next turn.

create function job_queue.settle_dependencies(
  p_parent_ids uuid[],
  p_limit integer default 1000
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = on
as $$
declare
  v_parent_ids uuid[] := array(
    select given.id
      from unnest(p_parent_ids) as given (id)
      left join job_queue.jobs as parent on parent.id = given.id
     where parent.status is null or parent.status in ('succeeded', 'failed', 'cancelled'));
  v_job_ids uuid[];
  v_doomed uuid[];
  v_count integer := 0;
begin
  while cardinality(v_parent_ids) > 0 and v_count < p_limit loop
    with settled as materialized (
      select
        dependency.dependency_id,
        dependency.job_id,
        dependency.on_parent_failure = 'cancel'
          and parent.status is distinct from 'succeeded' as is_doomed
        from job_queue.job_dependencies as dependency
        join job_queue.jobs as child on child.id = dependency.job_id
        left join job_queue.jobs as parent on parent.id = dependency.parent_id
       where dependency.parent_id = any (v_parent_ids)
         and (parent.status is null or parent.status in ('succeeded', 'failed', 'cancelled'))
       order by dependency.dependency_id
       limit p_limit - v_count
         for update of dependency, child skip locked
    ),
    deleted as (
      delete from job_queue.job_dependencies as dependency
       using settled
       where dependency.dependency_id = settled.dependency_id
    )
    select
      array_agg(distinct settled.job_id),
      array_agg(distinct settled.job_id) filter (where settled.is_doomed)
      into v_job_ids, v_doomed
      from settled;
    exit when v_job_ids is null;

    v_count := v_count + cardinality(v_job_ids);
    if current_setting('transaction_isolation') <> 'read committed' then
      perform
         from job_queue.job_dependencies as dependency
        where dependency.job_id = any (v_job_ids)
          for update skip locked;
    end if;
    v_parent_ids := v_parent_ids || job_queue.cancel_blocked_jobs(v_doomed);
    perform job_queue.unblock_jobs(v_job_ids);
  end loop;
  return v_count;
end
$$;

comment on function job_queue.settle_dependencies(uuid[], integer) is
  'Queues the blocked jobs for which one of these parents was the last to wait for, and cancels '
  'those that their failure cancels, and theirs in turn. Looks at p_limit jobs at most, and '
  'returns how many. Private to this schema.';

revoke execute on function job_queue.settle_dependencies(uuid[], integer) from public;
