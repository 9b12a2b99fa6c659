-- depends: 0224_prune_step

-- Changes no status: deletes jobs that ended long ago, with their events, as prune_step has it.

create or replace function job_queue.prune_jobs(
  p_limit integer default 1000
)
returns integer
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select step.pruned from job_queue.prune_step(p_limit) as step
$$;

comment on function job_queue.prune_jobs(integer) is
  'Deletes jobs that have ended longer ago than their queues keep them (keep_succeeded, '
  'keep_failed, keep_cancelled), with their histories. Looks at p_limit jobs, oldest first, and '
  'goes on from there at the next call; every ten minutes it begins anew with those it has passed. '
  'Returns how many it deleted.';

revoke execute on function job_queue.prune_jobs(integer) from public;
