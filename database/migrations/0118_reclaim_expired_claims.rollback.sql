-- running -> queued or failed or cancelled
--
-- A crash is not the job's own failure, so the job runs again, but not for ever: one that kills its
-- workers fails after max_losses of them. After a restart of the server every worker gets one whole
-- lease to report again, however long the server was away.
--
-- Claims that are being ended or renewed just now are passed over. A job that cancel_job is
-- changing just now is waited for: the decision stands in the update itself, so that it is made on
-- the row as that left it.

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
  v_count integer;
begin
  with expired as materialized (
    select claim.claim_id
      from job_queue.claims as claim
     where greatest(claim.expires_at, pg_postmaster_start_time() + claim.lease)
           <= clock_timestamp()
     order by claim.claim_id
     limit p_limit
       for update skip locked
  ),
  ended as (
    delete from job_queue.claims as claim
     using expired
     where claim.claim_id = expired.claim_id
    returning claim.job_id, claim.claim_id, claim.worker
  ),
  reclaimed as (
    update job_queue.jobs as job
       set status = case
             when job.cancel_requested then 'cancelled'
             when job.losses + 1 < job.max_losses then 'queued'
             else 'failed'
           end,
           claimable = not job.cancel_requested and job.losses + 1 < job.max_losses,
           attempts = job.attempts - 1,
           losses = job.losses + 1,
           held_key = case
             when not job.cancel_requested and job.losses + 1 < job.max_losses then job.held_key
           end,
           result = case
             when not job.cancel_requested and job.losses + 1 >= job.max_losses
             then jsonb_build_object('error', format(
               'lost with its worker, %s times of %s', job.losses + 1, greatest(job.max_losses, 1)))
           end,
           updated_at = clock_timestamp()
      from ended
     where job.id = ended.job_id
    returning job.id, job.status, ended.claim_id, ended.worker
  )
  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id, detail)
  select reclaimed.id, 'reclaim', 'running', reclaimed.status, reclaimed.claim_id,
         jsonb_build_object('worker', reclaimed.worker)
    from reclaimed;

  get diagnostics v_count = row_count;
  return v_count;
end
$$;

comment on function job_queue.reclaim_expired_claims(integer) is
  'Takes jobs from workers whose leases have run out, at most p_limit of them, and returns how '
  'many. Each is queued again in its old place or, after max_losses such losses, failed; the '
  'attempt does not count. claim_next_job calls it every second or so; calling it at any time, '
  'from anywhere, is safe.';

revoke execute on function job_queue.reclaim_expired_claims(integer) from public;
