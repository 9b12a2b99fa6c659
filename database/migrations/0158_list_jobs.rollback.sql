drop function job_queue.list_jobs(
  integer, uuid, text[], text[], text[], timestamptz, timestamptz, timestamptz, timestamptz, text,
  text
);

-- Changes nothing.
--
-- The plan is pinned to the primary key, so that a page costs the same however many jobs there are.

create function job_queue.list_jobs(
  p_limit integer default 100,
  p_after uuid default null
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
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
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
   where job.id < coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
   order by job.id desc
   limit p_limit
$$;

comment on function job_queue.list_jobs(integer, uuid) is
  'Jobs, newest first: at most p_limit of them (null: all), and only those that come after the job '
  'p_after in this order. Passing the last id of one page as p_after gives the next.';

revoke execute on function job_queue.list_jobs(integer, uuid) from public;

select job_queue.grant_roles();
