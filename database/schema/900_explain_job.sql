-- Changes nothing.

create function job_queue.explain_job(
  p_job_id uuid
)
returns table (
  reason text,
  explanation text
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_status text := job_queue.status_of(p_job_id);
begin
  return query
    select 'ended', format('it has %s at %s%s',
             case v_status when 'cancelled' then 'been cancelled' else v_status end,
             job.updated_at, ': ' || (job.result ->> 'error'))
      from job_queue.jobs as job
     where job.id = p_job_id
       and v_status in ('succeeded', 'failed', 'cancelled')
    union all
    select 'running', format('worker %s runs it under claim %s since %s; its lease %s at %s%s',
             coalesce(claim.worker, '(unnamed)'), claim.claim_id, claim.claimed_at,
             case when claim.expires_at > clock_timestamp() then 'ends' else 'ended' end,
             claim.expires_at, case when job.cancel_requested then '; it was asked to stop' end)
      from job_queue.claims as claim
      join job_queue.jobs as job on job.id = claim.job_id
     where claim.job_id = p_job_id
    union all
    select 'blocked', format('it waits for job %s, which %s', dependency.parent_id,
             coalesce('is ' || parent.status, 'does not exist'))
      from job_queue.job_dependencies as dependency
      left join job_queue.jobs as parent on parent.id = dependency.parent_id
     where dependency.job_id = p_job_id
       and v_status = 'blocked'
     limit 10;
  if v_status = 'queued' then
    return query select * from job_queue.explain_waiting(p_job_id);
    return query select * from job_queue.explain_place(p_job_id);
  end if;
end
$$;

comment on function job_queue.explain_job(uuid) is
  'Why the job is not running, or that it is: a row for each reason, a word for programs (ended, '
  'running, blocked, scheduled, paused, queue limit, key limit, rate limit, no worker, behind, '
  'next) and a sentence for people. Errors: JQ002 no such job.';

revoke execute on function job_queue.explain_job(uuid) from public;
