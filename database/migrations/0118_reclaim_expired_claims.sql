-- depends: 0117_time_out_jobs

-- running -> queued or failed or cancelled
--
-- A crash is not the job's own failure, so the job runs again, but not for ever: one that kills its
-- workers fails after max_losses of them. After a restart of the server every worker gets one whole
-- lease to report again, however long the server was away.
--
-- Runs that are being ended, renewed or cancelled just now are passed over.

create or replace function job_queue.reclaim_expired_claims(
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
               format('lost with its worker, %s times of %s',
                      job.losses + 1, greatest(job.max_losses, 1)),
               true, null)::job_queue.run
      from job_queue.claims as claim
      join job_queue.jobs as job on job.id = claim.job_id
     where greatest(claim.expires_at, pg_postmaster_start_time() + claim.lease)
           <= clock_timestamp()
     order by claim.claim_id
     limit p_limit
       for update skip locked);
begin
  if v_runs = '{}' then
    return 0;
  end if;
  return cardinality(array_remove(job_queue.end_runs('reclaim', v_runs), null));
end
$$;

comment on function job_queue.reclaim_expired_claims(integer) is
  'Takes jobs from workers whose leases have run out, at most p_limit of them, and returns how '
  'many. Each is queued again in its old place or, after max_losses such losses, failed; the '
  'attempt does not count. claim_next_job calls it every second or so; calling it at any time, '
  'from anywhere, is safe.';

revoke execute on function job_queue.reclaim_expired_claims(integer) from public;
