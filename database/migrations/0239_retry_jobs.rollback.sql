-- failed -> queued
--
-- Each job is a step of its own, so that one whose unique key is held does not spoil the others.
-- Jobs that another transaction has locked are passed over.

create or replace function job_queue.retry_jobs(
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
set enable_sort = off
as $$
begin
  if num_nonnulls(p_queue, p_job_type, p_error, p_failed_after, p_failed_before) = 0 then
    perform job_queue.raise_invalid_argument(
      'filter', null, 'Say which jobs; p_failed_before => clock_timestamp() means all.');
  end if;

  for id in
    select job.id
      from job_queue.jobs as job
     where job.failed_at is not null
       and job.failed_at >= coalesce(p_failed_after, '-infinity')
       and job.failed_at < coalesce(p_failed_before, 'infinity')
       and (p_queue is null or job.queue = p_queue)
       and (p_within_queues is null or job.queue = any (p_within_queues))
       and (p_job_type is null or job.job_type = p_job_type)
       and (p_error is null or strpos(job.result ->> 'error', p_error) > 0)
     order by job.failed_at, job.id
     limit p_limit
       for update skip locked
  loop
    outcome := 'would be retried';
    if not p_dry_run then
      begin
        perform job_queue.retry_job(id);
        outcome := 'retried';
      exception
        when sqlstate 'JQ007' then
          outcome := 'unique key held';
      end;
    end if;
    return next;
  end loop;
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
