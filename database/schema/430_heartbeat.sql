-- Changes no job.
--
-- A claim that is being ended just now is passed over rather than waited for, so that one slow
-- transaction of a worker does not cost it its other claims.

create function job_queue.heartbeat(
  p_claim_ids bigint[],
  p_lease interval default null
)
returns table (
  claim_id bigint,
  held boolean,
  cancel_requested boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  perform job_queue.check_lease(p_lease);

  return query
    with held_claims as materialized (
      select claim.claim_id
        from job_queue.claims as claim
       where claim.claim_id = any (p_claim_ids)
       order by claim.claim_id
         for update skip locked
    ),
    renewed as (
      update job_queue.claims as claim
         set lease = coalesce(p_lease, claim.lease),
             expires_at = clock_timestamp() + coalesce(p_lease, claim.lease)
       where claim.claim_id = any (array(select held_claims.claim_id from held_claims))
    )
    select
      asked.claim_id,
      held.claim_id is not null,
      coalesce(held.cancel_requested, false)
      from unnest(p_claim_ids) as asked (claim_id)
      left join lateral (
        select claim.claim_id,
               (select job.cancel_requested from job_queue.jobs as job where job.id = claim.job_id)
          from job_queue.claims as claim
         where claim.claim_id = asked.claim_id
        offset 0
      ) as held (claim_id, cancel_requested) on true;
end
$$;

comment on function job_queue.heartbeat(bigint[], interval) is
  'Says that the worker which holds these claims is alive: renews each lease from now, for p_lease '
  'if given (1 millisecond to 1 day). Returns a row for each claim; held is false for one that was '
  'lost: stop that work, its result will be refused. cancel_requested is true for one that '
  'cancel_job wants to stop: stop it, and call fail_job or release_job. A third of the lease is a '
  'good interval. Errors: JQ001 for a lease out of range.';

revoke execute on function job_queue.heartbeat(bigint[], interval) from public;
