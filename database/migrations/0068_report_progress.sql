-- depends: 0067_claim_jobs

-- Changes no status.

create function job_queue.report_progress(
  p_job_id uuid,
  p_claim_id bigint,
  p_progress jsonb
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  if pg_column_size(p_progress) > 65536 then
    perform job_queue.raise_invalid_argument(
      'progress', pg_column_size(p_progress) || ' bytes', 'Pass JSON of at most 64 KiB.');
  end if;

  update job_queue.claims as claim
     set progress = p_progress
   where claim.claim_id = p_claim_id
     and claim.job_id = p_job_id;
  if not found then
    perform job_queue.raise_lost_claim(p_job_id, p_claim_id);
  end if;
end
$$;

comment on function job_queue.report_progress(uuid, bigint, jsonb) is
  'Notes how far a run has come, for get_job to show while the run lasts: any JSON of at most 64 '
  'KiB. Does not renew the lease. Errors, each changing nothing: JQ001 for too much of it, JQ002 '
  'no such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.report_progress(uuid, bigint, jsonb) from public;
