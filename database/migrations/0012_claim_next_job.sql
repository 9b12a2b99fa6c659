-- depends: 0011_reclaim_if_due

-- queued -> running
--
-- The plan is pinned to jobs_claimable_idx: a plan cached while the table was empty would otherwise
-- scan and sort the whole backlog on every claim after a burst.

create function job_queue.claim_next_job(
  p_worker text default null,
  p_lease interval default '1 minute'
)
returns table (
  id uuid,
  claim_id bigint,
  status text,
  sleep_seconds integer,
  message text,
  created_at timestamptz,
  updated_at timestamptz
)
language plpgsql
volatile
security definer
rows 1
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_job_id uuid;
  v_claim_id bigint;
begin
  if p_lease is null or p_lease not between interval '1 millisecond' and interval '1 day' then
    raise exception using
      errcode = 'JQ001',
      message = format('invalid lease: %s', coalesce(p_lease::text, 'null')),
      hint = 'Pass an interval from 1 millisecond to 1 day.';
  end if;
  perform job_queue.reclaim_if_due();

  select job.id
    into v_job_id
    from job_queue.jobs as job
   where job.claimable
   order by job.seq
   limit 1
     for update skip locked;
  if not found then
    return;
  end if;

  insert into job_queue.claims as claim (job_id, worker, lease, expires_at)
  values (v_job_id, p_worker, p_lease, clock_timestamp() + p_lease)
  returning claim.claim_id into v_claim_id;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id, detail)
  values (v_job_id, 'claim', 'queued', 'running', v_claim_id,
          jsonb_build_object('worker', p_worker));

  return query
    update job_queue.jobs as job
       set status = 'running',
           claimable = false,
           updated_at = clock_timestamp()
     where job.id = v_job_id
    returning
      job.id,
      v_claim_id,
      job.status,
      job.sleep_seconds,
      job.message,
      job.created_at,
      job.updated_at;
end
$$;

comment on function job_queue.claim_next_job(text, interval) is
  'Takes the queued job that arrived first, skipping those that another transaction is taking, and '
  'returns it with the claim_id that complete_job, fail_job and release_job ask for. No row: '
  'nothing is waiting. p_worker says who asks, for people to read. The claim holds for p_lease (1 '
  'millisecond to 1 day), and longer if renewed by heartbeat. Commit before the work starts. Call '
  'it as `select * from claim_next_job()`: `select (claim_next_job()).*` would claim a job for '
  'each column. Errors: JQ001 for a lease out of range.';

revoke execute on function job_queue.claim_next_job(text, interval) from public;
