-- depends: 0175_check_scope

-- Changes nothing.
--
-- A job of another queue is said not to exist, as the verbs would say it of one that does not.

create function job_queue.check_key_jobs(
  p_key_queues text[],
  p_job_ids uuid[],
  p_claim_ids bigint[]
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_claim_id bigint;
begin
  perform job_queue.raise_no_job(job.id)
     from job_queue.jobs as job
    where job.id = any (p_job_ids)
      and job.queue <> all (p_key_queues);

  select claim.claim_id
    into v_claim_id
    from job_queue.claims as claim
    join job_queue.jobs as job on job.id = claim.job_id
   where claim.claim_id = any (p_claim_ids)
     and job.queue <> all (p_key_queues)
   limit 1;
  if found then
    raise exception using
      errcode = 'JQ009',
      message = format('the API key does not allow claim %s', v_claim_id),
      hint = 'It is restricted to some queues: list_api_keys shows which.';
  end if;
end
$$;

comment on function job_queue.check_key_jobs(text[], uuid[], bigint[]) is
  'Holds jobs and claims against the queues that the API key is restricted to; those that do not '
  'exist are for the caller to find. Private to this schema. Errors: JQ002 for a job of another '
  'queue, JQ009 for a claim of one.';

revoke execute on function job_queue.check_key_jobs(text[], uuid[], bigint[]) from public;
