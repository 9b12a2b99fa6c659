-- running or queued -> succeeded or running

create function job_queue.complete_and_claim(
  p_runs jsonb,
  p_limit integer default 1,
  p_worker text default null,
  p_queues text[] default null,
  p_job_types text[] default null,
  p_lease interval default '1 minute'
)
returns table (
  id uuid,
  claim_id bigint,
  status text,
  sleep_seconds integer,
  message text,
  created_at timestamptz,
  updated_at timestamptz,
  job_type text,
  payload jsonb,
  queue text,
  priority smallint,
  run_at timestamptz,
  attempt integer,
  max_attempts integer,
  timeout interval,
  refusal text,
  losses integer,
  trace_context jsonb
)
language plpgsql
volatile
security definer
rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select run.job_id, run.claim_id, null::text, null::integer, null::text, null::timestamptz,
           null::timestamptz, null::text, null::jsonb, null::text, null::smallint,
           null::timestamptz, null::integer, null::integer, null::interval, run.refusal,
           null::integer, null::jsonb
      from job_queue.complete_jobs(p_runs) as run
     where run.refusal is not null;
  return query
    select claimed.id, claimed.claim_id, claimed.status, claimed.sleep_seconds, claimed.message,
           claimed.created_at, claimed.updated_at, claimed.job_type, claimed.payload,
           claimed.queue, claimed.priority, claimed.run_at, claimed.attempt, claimed.max_attempts,
           claimed.timeout, null::text, claimed.losses, claimed.trace_context
      from job_queue.claim_jobs(p_limit, p_worker, p_queues, p_job_types, p_lease) as claimed;
end
$$;

comment on function job_queue.complete_and_claim(
  jsonb, integer, text, text[], text[], interval
) is
  'complete_jobs and then claim_jobs, in one call and one transaction. Returns the jobs that were '
  'claimed, and before them a row for each run that could not be completed, which has nothing but '
  'id, claim_id and refusal, the SQLSTATE that complete_job would have raised. Errors: JQ001 for '
  'an argument out of range.';

revoke execute on function job_queue.complete_and_claim(
  jsonb, integer, text, text[], text[], interval
) from public;
