-- depends: 0019_status_of

-- The fence. Changes no job: deletes the claim, or says why there is none to delete.
--
-- Each verb that ends a run calls it first. Of two calls with one claim, the second waits for the
-- first one's transaction at the claim's row and then finds it gone.

create function job_queue.end_claim(
  p_job_id uuid,
  p_claim_id bigint
)
returns void
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
  delete from job_queue.claims as claim
   where claim.claim_id = p_claim_id
     and claim.job_id = p_job_id;
  if found then
    return;
  end if;

  v_status := job_queue.status_of(p_job_id);
  if v_status <> 'running' then
    raise exception using
      errcode = 'JQ003',
      message = format('job %s is %s, not running', p_job_id, v_status),
      hint = 'This run of it is over: discard its result. get_job shows the outcome.';
  else
    raise exception using
      errcode = 'JQ004',
      message = format(
        'claim %s does not hold job %s', coalesce(p_claim_id::text, 'null'), p_job_id),
      hint = 'The job runs under another claim: stop, and discard the result. A worker passes the '
             'claim_id that claim_next_job gave it.';
  end if;
end
$$;

comment on function job_queue.end_claim(uuid, bigint) is
  'Ends the claim p_claim_id on the job p_job_id. Private to this schema: a caller must change the '
  'job''s status in the same transaction. Errors: JQ002 no such job, JQ003 it is not running, '
  'JQ004 another claim holds it.';

revoke execute on function job_queue.end_claim(uuid, bigint) from public;
