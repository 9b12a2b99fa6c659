-- queued -> cancelled
--
-- Locks nothing but the job, whereas the verbs that end a run lock the claim and then the job, so
-- none of them can wait for the other in a circle.

create or replace function job_queue.cancel_job(
  p_job_id uuid
)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_status text;
begin
  update job_queue.jobs as job
     set status = case job.status when 'queued' then 'cancelled' else job.status end,
         claimable = false,
         cancel_requested = (job.status = 'running'),
         held_key = case job.status when 'running' then job.held_key end,
         updated_at = case job.status when 'queued' then clock_timestamp() else job.updated_at end
   where job.id = p_job_id
     and (job.status = 'queued' or job.status = 'running' and not job.cancel_requested)
  returning job.status into v_status;
  if found then
    insert into job_queue.job_events (job_id, verb, from_status, to_status)
    values (p_job_id, 'cancel', case v_status when 'running' then 'running' else 'queued' end,
            v_status);
  else
    v_status := job_queue.status_of(p_job_id);
  end if;

  return case v_status
    when 'cancelled' then 'cancelled'
    when 'running' then 'requested'
    else 'too late'
  end;
end
$$;

comment on function job_queue.cancel_job(uuid) is
  'Cancels a job for good, and returns which of three things happened. cancelled: it was waiting, '
  'and will not run. requested: it is running; heartbeat tells its worker, and unless it succeeds '
  'all the same it is cancelled when the run ends, if only because the lease does. too late: it '
  'has succeeded or failed. Errors: JQ002 no such job.';

revoke execute on function job_queue.cancel_job(uuid) from public;
