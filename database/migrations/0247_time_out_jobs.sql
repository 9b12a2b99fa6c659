-- depends: 0246_settled_events

-- running -> queued or failed or cancelled
--
-- A job that ran out of time has failed, like any other: it is tried again while attempts are left.
-- Runs that are being ended, renewed or cancelled just now are passed over.
--
-- A run whose lease is over too was lost with its worker, which is no failure of the job: it is for
-- reclaim_expired_claims. After an outage, and in a restored copy, that is all of them.

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
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_runs job_queue.run[] := array(
    select row(claim.job_id, claim.claim_id, null,
               format('timed out after %s', claim.deadline_at - claim.claimed_at),
               true, null)::job_queue.run
      from job_queue.claims as claim
      join job_queue.jobs as job on job.id = claim.job_id
     where claim.deadline_at <= clock_timestamp()
       and claim.expires_at > clock_timestamp()
     order by claim.claim_id
     limit p_limit
       for update skip locked);
begin
  if v_runs = '{}' then
    return 0;
  end if;
  return cardinality(array_remove(job_queue.end_runs('time_out', v_runs), null));
end
$$;

comment on function job_queue.time_out_jobs(integer) is
  'Ends the runs that have lasted longer than their jobs may, at most p_limit of them, and returns '
  'how many. Each fails with "timed out after" as its error, and is tried again while attempts are '
  'left. claim_next_job calls it every second or so; calling it at any time is safe.';

revoke execute on function job_queue.time_out_jobs(integer) from public;
