-- depends: 0025_release_job

-- queued -> cancelled
--
-- Claims are locked before jobs, as by every verb that ends a run. The loop goes round again only
-- when the job has been claimed or handed back between two of its statements.

create function job_queue.cancel_job(
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
  v_claim_id bigint;
  v_status text;
begin
  loop
    update job_queue.claims as claim
       set cancel_requested = true
     where claim.job_id = p_job_id
    returning claim.claim_id into v_claim_id;
    if found then
      insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id)
      values (p_job_id, 'cancel', 'running', 'running', v_claim_id);
      return 'requested';
    end if;

    update job_queue.jobs as job
       set status = 'cancelled',
           claimable = false,
           held_key = null,
           updated_at = clock_timestamp()
     where job.id = p_job_id
       and job.status = 'queued';
    if found then
      insert into job_queue.job_events (job_id, verb, from_status, to_status)
      values (p_job_id, 'cancel', 'queued', 'cancelled');
      return 'cancelled';
    end if;

    v_status := job_queue.status_of(p_job_id);
    exit when v_status not in ('queued', 'running');
  end loop;
  return case v_status when 'cancelled' then 'cancelled' else 'too late' end;
end
$$;

comment on function job_queue.cancel_job(uuid) is
  'Cancels a job for good, and returns which of three things happened. cancelled: it was waiting, '
  'and will not run. requested: it is running; heartbeat tells its worker, and unless it succeeds '
  'all the same it is cancelled when the run ends, if only because the lease does. too late: it '
  'has succeeded or failed. Errors: JQ002 no such job.';

revoke execute on function job_queue.cancel_job(uuid) from public;
