-- Changes nothing.
--
-- What a key that is restricted to some queues asks for must be about a queue, a job or a claim,
-- all in these queues. So what concerns the whole system is refused without being listed anywhere.
-- What is listed are the functions that read and change no more than the queues which they are
-- given, and which authorize has returned, let them.

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
  end if;
  if v_refused is not null then
    raise exception using
      errcode = 'JQ009',
      message = format('the API key does not allow %s', v_refused),
      hint = 'It is restricted to some queues: list_api_keys shows which.';
  end if;

  if num_nonnulls(p_job_ids, p_claim_ids) > 0 then
    perform job_queue.check_key_jobs(p_key_queues, p_job_ids, p_claim_ids);
  end if;
end
$$;

comment on function job_queue.check_key_queues(text[], text, text[], uuid[], bigint[]) is
  'Holds a call against the queues that the API key is restricted to. Private to this schema. '
  'Errors: JQ009 for another queue, for a claim of one, and for what concerns the whole system; '
  'JQ002 for a job of another queue.';

revoke execute on function job_queue.check_key_queues(text[], text, text[], uuid[], bigint[])
  from public;
