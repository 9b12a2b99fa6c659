-- failed -> queued
--
-- Each job is a step of its own, so that one whose unique key is held does not spoil the others.
-- The steps go by the unique keys, the order in which enqueue_jobs takes them: two calls that want
-- the same keys wait for each other, but never in a circle.

create function job_queue.retry_jobs(
  p_queue text default null,
  p_job_type text default null,
  p_error text default null,
  p_failed_after timestamptz default null,
  p_failed_before timestamptz default null,
  p_limit integer default 1000,
  p_dry_run boolean default false,
  p_within_queues text[] default null
)
returns table (
  id uuid,
  outcome text
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_ids uuid[];
  v_outcomes text[];
  v_position bigint;
begin
  if num_nonnulls(p_queue, p_job_type, p_error, p_failed_after, p_failed_before) = 0 then
    perform job_queue.raise_invalid_argument(
      'filter', null, 'Say which jobs; p_failed_before => clock_timestamp() means all.');
  end if;

  v_ids := job_queue.lock_dead_jobs(
    p_queue, p_job_type, p_error, p_failed_after, p_failed_before, p_limit, p_within_queues);
  v_outcomes := array_fill('would be retried'::text, array[coalesce(cardinality(v_ids), 0)]);
  for v_position in
    select locked.position
      from unnest(v_ids) with ordinality as locked (id, position)
     cross join lateral (
       select job.queue, job.unique_key from job_queue.jobs as job where job.id = locked.id
       offset 0
     ) as job
     where not p_dry_run
     order by job.queue, job.unique_key, locked.position
  loop
    begin
      perform job_queue.retry_job(v_ids[v_position]);
      v_outcomes[v_position] := 'retried';
    exception
      when sqlstate 'JQ007' then
        v_outcomes[v_position] := 'unique key held';
    end;
  end loop;
  return query select done.id, done.outcome from unnest(v_ids, v_outcomes) as done (id, outcome);
end
$$;

comment on function job_queue.retry_jobs(
  text, text, text, timestamptz, timestamptz, integer, boolean, text[]
) is
  'retry_job for failed jobs that match all that is given: the queue, the type, a part of the '
  'error, when they failed; the first to fail first, p_limit at most. Returns each with its '
  'outcome: retried, unique key held (it stays failed) or, with p_dry_run, would be retried. '
  'p_within_queues: of no queues but these, which is no filter by itself. Errors: JQ001 if nothing '
  'is given.';

revoke execute on function job_queue.retry_jobs(
  text, text, text, timestamptz, timestamptz, integer, boolean, text[]
) from public;
