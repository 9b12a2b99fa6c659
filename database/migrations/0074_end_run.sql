-- depends: 0073_end_runs

-- running -> queued or failed or cancelled

create function job_queue.end_run(
  p_verb text,
  p_job_id uuid,
  p_claim_id bigint,
  p_error text default null,
  p_retryable boolean default null,
  p_delay interval default null
)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_status text := (job_queue.end_runs(
    p_verb,
    array[row(p_job_id, p_claim_id, null, p_error, p_retryable, p_delay)::job_queue.run]))[1];
begin
  if v_status is null then
    perform job_queue.raise_lost_claim(p_job_id, p_claim_id);
  end if;
  return v_status;
end
$$;

comment on function job_queue.end_run(text, uuid, bigint, text, boolean, interval) is
  'end_runs for one run, and an error if its claim does not hold. Private to this schema. Errors: '
  'JQ002 no such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.end_run(text, uuid, bigint, text, boolean, interval)
  from public;
