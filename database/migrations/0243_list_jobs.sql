-- depends: 0242_find_jobs

-- Changes nothing.
--
-- The plan is pinned to the primary key, so that a page costs the same however many jobs there are.
-- find_jobs says which they are.

create or replace function job_queue.list_jobs(
  p_limit integer default 100,
  p_after uuid default null,
  p_statuses text[] default null,
  p_queues text[] default null,
  p_job_types text[] default null,
  p_created_after timestamptz default null,
  p_created_before timestamptz default null,
  p_updated_after timestamptz default null,
  p_updated_before timestamptz default null,
  p_unique_key text default null,
  p_error text default null
)
returns table (
  id uuid,
  status text,
  sleep_seconds integer,
  message text,
  result jsonb,
  created_at timestamptz,
  updated_at timestamptz,
  job_type text,
  payload jsonb,
  queue text,
  priority smallint,
  run_at timestamptz,
  attempts integer,
  max_attempts integer,
  losses integer,
  max_losses integer,
  timeout interval,
  unique_key text
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
declare
  v_ids uuid[];
begin
  perform job_queue.raise_invalid_argument(
    'status', given.status,
    'Pass statuses of job_transitions: blocked, queued, running, succeeded, failed, cancelled.')
     from unnest(p_statuses) as given (status)
    where given.status is null
       or given.status not in (
            'blocked', 'queued', 'running', 'succeeded', 'failed', 'cancelled');
  if p_queues = '{}' or p_job_types = '{}' then
    return;
  end if;

  -- Not in the query itself: to plan that, Postgres would call it once more.
  v_ids := job_queue.find_jobs(
    p_limit, p_after, p_statuses, p_queues, p_job_types, p_created_after, p_created_before,
    p_updated_after, p_updated_before, p_unique_key, p_error);
  return query
    select
      job.id,
      job.status,
      job.sleep_seconds,
      job.message,
      job.result,
      job.created_at,
      job.updated_at,
      job.job_type,
      job.payload,
      job.queue,
      job.priority,
      job.run_at,
      job.attempts,
      job.max_attempts,
      job.losses,
      job.max_losses,
      job.timeout,
      job.unique_key
      from job_queue.jobs as job
     where job.id = any (v_ids)
     order by job.id desc;
end
$$;

comment on function job_queue.list_jobs(
  integer, uuid, text[], text[], text[], timestamptz, timestamptz, timestamptz, timestamptz, text,
  text
) is
  'Jobs, newest first: at most p_limit of them (null: all), and only those that come after the job '
  'p_after in this order. Passing the last id of one page as p_after gives the next. All that is '
  'given must match: one of the statuses, of the queues, of the types, the times (after: or at; '
  'before: not at), the unique key, a part of the error of a job that failed. A page of blocked, '
  'queued, running or failed jobs, or of a unique key, is found among these, and a time of '
  'creation leaves out what is older; whatever else is rare is looked for among all jobs. Errors: '
  'JQ001 for a status that there is not.';

revoke execute on function job_queue.list_jobs(
  integer, uuid, text[], text[], text[], timestamptz, timestamptz, timestamptz, timestamptz, text,
  text
) from public;
