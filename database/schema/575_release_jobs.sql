-- running -> queued or cancelled

create function job_queue.release_jobs(
  p_runs jsonb
)
returns table (
  job_id uuid,
  claim_id bigint,
  status text,
  refusal text
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs job_queue.run[] := job_queue.parse_runs(p_runs, '{job_id,claim_id}');
begin
  return query
    select run.job_id, run.claim_id, run.status,
           case when run.status is null then job_queue.refusal(run.job_id) end
      from unnest(v_runs, job_queue.end_runs('release', v_runs))
           as run (job_id, claim_id, result, error, retryable, delay, status);
end
$$;

comment on function job_queue.release_jobs(jsonb) is
  'release_job for many: p_runs is a JSON array of objects keyed like its parameters without '
  'their p_. Returns a row for each, in the same order: the job''s new status or, if the claim '
  'was lost, no status and the SQLSTATE (refusal) that release_job would have raised; the others '
  'are released all the same. Errors: JQ001 if p_runs is something else, class 22 for a value of '
  'the wrong type.';

revoke execute on function job_queue.release_jobs(jsonb) from public;
