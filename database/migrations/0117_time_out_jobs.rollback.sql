-- running -> queued or failed or cancelled
--
-- A job that ran out of time has failed, like any other: it is tried again while attempts are left.

create or replace function job_queue.time_out_jobs(
  p_limit integer default 100
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_claim record;
  v_count integer := 0;
begin
  for v_claim in
    select claim.job_id, claim.claim_id, claim.deadline_at - claim.claimed_at as timeout
      from job_queue.claims as claim
     where claim.deadline_at <= clock_timestamp()
     order by claim.claim_id
     limit p_limit
       for update skip locked
  loop
    perform job_queue.fail_job(
      v_claim.job_id, v_claim.claim_id, format('timed out after %s', v_claim.timeout));
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;

comment on function job_queue.time_out_jobs(integer) is
  'Ends the runs that have lasted longer than their jobs may, at most p_limit of them, and returns '
  'how many. Each fails with "timed out after" as its error, and is tried again while attempts are '
  'left. claim_next_job calls it every second or so; calling it at any time is safe.';

revoke execute on function job_queue.time_out_jobs(integer) from public;
