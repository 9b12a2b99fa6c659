-- Changes nothing.
--
-- What a key that is restricted to some queues asks for must be about a queue, a job or a claim,
-- all in these queues. So what concerns the whole system is refused without being listed anywhere.
-- What is listed are the functions that read or change no more than what the queues which authorize
-- returns let them.
--
-- A job of another queue is said not to exist, as the verbs would say it of one that does not.

create function job_queue.check_key_queues(
  p_key_queues text[],
  p_function text,
  p_queues text[],
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
  v_refused text;
begin
  if num_nonnulls(p_queues, p_job_ids, p_claim_ids) = 0
    and coalesce(p_function, '') <> all ('{list_jobs,list_dead_jobs,list_events,settled_events,
      list_queues,queue_statistics,cancel_jobs,retry_jobs,claim_next_job,claim_jobs}'::text[])
  then
    v_refused := coalesce(p_function, 'null');
  elsif not p_queues <@ p_key_queues then
    select 'queue ' || coalesce(left(named.queue, 100), 'null')
      into v_refused
      from unnest(p_queues) as named (queue)
     where coalesce(named.queue <> all (p_key_queues), true)
     limit 1;
  else
    select 'claim ' || claim.claim_id
      into v_refused
      from job_queue.claims as claim
      join job_queue.jobs as job on job.id = claim.job_id
     where claim.claim_id = any (p_claim_ids)
       and job.queue <> all (p_key_queues)
     limit 1;
  end if;
  if v_refused is not null then
    raise exception using
      errcode = 'JQ009',
      message = format('the API key does not allow %s', v_refused),
      hint = 'It is restricted to some queues: list_api_keys shows which.';
  end if;

  perform job_queue.raise_no_job(job.id)
     from job_queue.jobs as job
    where job.id = any (p_job_ids)
      and job.queue <> all (p_key_queues);
end
$$;

comment on function job_queue.check_key_queues(text[], text, text[], uuid[], bigint[]) is
  'Holds a call against the queues that the key is restricted to. Private to this schema. Errors: '
  'JQ009 for another queue, for a claim of one, and for what concerns the whole system; JQ002 for '
  'a job of another queue.';

revoke execute on function job_queue.check_key_queues(text[], text, text[], uuid[], bigint[])
  from public;
