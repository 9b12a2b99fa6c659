-- depends: 0234_find_jobs

-- Changes nothing.
--
-- Volatile only so that one statement can ask settled_events how far to read and then read that
-- far: a stable function would look at the database as it was before the statement began, and miss
-- what was committed in between.
--
-- The events of one job are found by the job, all others by their numbers.

create or replace function job_queue.list_events(
  p_after bigint default null,
  p_limit integer default 1000,
  p_until bigint default null,
  p_job_id uuid default null,
  p_queues text[] default null
)
returns table (
  event_id bigint,
  job_id uuid,
  queue text,
  at timestamptz,
  verb text,
  from_status text,
  to_status text,
  claim_id bigint,
  actor text,
  detail jsonb,
  attempt integer
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
  v_after bigint := coalesce(p_after, 0);
  v_until bigint := coalesce(p_until, 9223372036854775807);
begin
  if p_job_id is not null then
    return query
      select event.event_id, event.job_id, job.queue, event.at, event.verb, event.from_status,
             event.to_status, event.claim_id, event.actor, event.detail, event.attempt
        from job_queue.job_events as event
        join job_queue.jobs as job on job.id = event.job_id
       where event.job_id = p_job_id
         and event.event_id > v_after
         and event.event_id <= v_until
         and (p_queues is null or job.queue = any (p_queues))
       order by event.event_id
       limit p_limit;
  else
    return query
      select event.event_id, event.job_id, job.queue, event.at, event.verb, event.from_status,
             event.to_status, event.claim_id, event.actor, event.detail, event.attempt
        from job_queue.job_events as event
        join job_queue.jobs as job on job.id = event.job_id
       where event.event_id > v_after
         and event.event_id <= v_until
         and (p_queues is null or job.queue = any (p_queues))
       order by event.event_id
       limit p_limit;
  end if;
end
$$;

comment on function job_queue.list_events(bigint, integer, bigint, uuid, text[]) is
  'The history of all jobs, or of one, or of those of some queues, in the order of event_id: at '
  'most p_limit events (null: all) after p_after and up to p_until. Passing the last event_id of '
  'one page as p_after gives the next. Events commit in another order than their numbers: whoever '
  'reads on as they come in, and wants to miss none, reads up to where settled_events says.';

revoke execute on function job_queue.list_events(bigint, integer, bigint, uuid, text[])
  from public;
