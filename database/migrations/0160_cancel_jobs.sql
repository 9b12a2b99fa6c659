-- depends: 0159_lock_unended_jobs

-- blocked or queued -> cancelled
--
-- Jobs that another transaction has locked are passed over. So it waits for nobody, however many
-- it has locked itself, and is in no deadlock.

create function job_queue.cancel_jobs(
  p_queue text default null,
  p_job_type text default null,
  p_status text default null,
  p_unique_key text default null,
  p_created_after timestamptz default null,
  p_created_before timestamptz default null,
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
as $$
begin
  if num_nonnulls(
    p_queue, p_job_type, p_status, p_unique_key, p_created_after, p_created_before) = 0
  then
    perform job_queue.raise_invalid_argument(
      'filter', null, 'Say which jobs; p_created_before => clock_timestamp() means all.');
  end if;
  if p_status not in ('blocked', 'queued', 'running') then
    perform job_queue.raise_invalid_argument(
      'status', p_status, 'Pass blocked, queued or running; a job of another status has ended.');
  end if;

  foreach id in array job_queue.lock_unended_jobs(
    p_queue, p_job_type, p_status, p_unique_key, p_created_after, p_created_before, p_limit,
    p_within_queues)
  loop
    outcome := 'would be cancelled';
    if not p_dry_run then
      outcome := job_queue.cancel_job(id);
    end if;
    return next;
  end loop;
end
$$;

comment on function job_queue.cancel_jobs(
  text, text, text, text, timestamptz, timestamptz, integer, boolean, text[]
) is
  'cancel_job for jobs that have not ended and match all that is given: the queue, the type, the '
  'status (blocked, queued or running), the unique key, when they were created (after: or at; '
  'before: not at); p_limit at most. Returns each with its outcome: cancelled, requested or, with '
  'p_dry_run, would be cancelled. Jobs that were asked to stop before are not asked again. '
  'p_within_queues: of no queues but these, which is no filter by itself. Errors: JQ001 if '
  'nothing is given, or for another status.';

revoke execute on function job_queue.cancel_jobs(
  text, text, text, text, timestamptz, timestamptz, integer, boolean, text[]
) from public;

select job_queue.grant_roles();
