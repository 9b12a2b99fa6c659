-- Changes nothing.

create function job_queue.list_dead_jobs(
  p_limit integer default 100,
  p_after uuid default null,
  p_queue text default null,
  p_job_type text default null,
  p_error text default null,
  p_failed_after timestamptz default null,
  p_failed_before timestamptz default null,
  p_within_queues text[] default null
)
returns table (
  id uuid,
  failed_at timestamptz,
  queue text,
  job_type text,
  payload jsonb,
  error text,
  attempts integer,
  losses integer,
  retries bigint
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
    job.failed_at,
    job.queue,
    job.job_type,
    job.payload,
    job.result ->> 'error',
    job.attempts,
    job.losses,
    (select count(*)
       from job_queue.job_events as event
      where event.job_id = job.id
        and event.verb = 'retry')
    from job_queue.jobs as job
   where job.failed_at is not null
     and (job.failed_at, job.id) < (
       coalesce((select coalesce(last.failed_at, (
                          select max(event.at)
                            from job_queue.job_events as event
                           where event.job_id = last.id
                             and event.to_status = 'failed'))
                   from job_queue.jobs as last
                  where last.id = p_after),
                'infinity'),
       coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
     and job.failed_at >= coalesce(p_failed_after, '-infinity')
     and job.failed_at < coalesce(p_failed_before, 'infinity')
     and (p_queue is null or job.queue = p_queue)
     and (p_within_queues is null or job.queue = any (p_within_queues))
     and (p_job_type is null or job.job_type = p_job_type)
     and (p_error is null or strpos(job.result ->> 'error', p_error) > 0)
   order by job.failed_at desc, job.id desc
   limit p_limit
$$;

comment on function job_queue.list_dead_jobs(
  integer, uuid, text, text, text, timestamptz, timestamptz, text[]
) is
  'The dead letters: jobs that have failed for good, the last to fail first, with the error of the '
  'last attempt and how often retry_job had been called; job_history has all attempts. At most '
  'p_limit of them (null: all) that match all that is given, as retry_jobs has it: the queue, the '
  'type, a part of the error, when they failed (after: or at; before: not at); p_within_queues: of '
  'no queues but these. Passing the last id of one page as p_after gives the next.';

revoke execute on function job_queue.list_dead_jobs(
  integer, uuid, text, text, text, timestamptz, timestamptz, text[]
) from public;
