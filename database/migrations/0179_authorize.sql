-- depends: 0178_spend_request

-- Changes no job: says whether a call of the REST API may be made, and counts it.
--
-- To be called in the same statement as the function proper, before it: then both cost one round
-- trip, and a key that is revoked is refused from the next statement on. A request counts whatever
-- becomes of it, since a sequence is not rolled back.

create function job_queue.authorize(
  p_key_id text,
  p_key_hash bytea,
  p_function text,
  p_queues text[] default null,
  p_job_ids uuid[] default null,
  p_claim_ids bigint[] default null,
  p_requests integer default 1
)
returns table (
  client text,
  queues text[],
  rate_limit integer,
  rate_period interval,
  rate_remaining integer,
  rate_reset interval
)
language plpgsql
volatile
rows 1
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key record;
begin
  queues := p_queues;
  if p_key_id is not null then
    select * into v_key from job_queue.check_api_key(p_key_id, p_key_hash);
    client := p_key_id;
    queues := coalesce(p_queues, v_key.queues);
    if v_key.rate_limit is not null then
      rate_limit := v_key.rate_limit;
      rate_period := v_key.rate_period;
      select spent.remaining, spent.reset
        into rate_remaining, rate_reset
        from job_queue.spend_request(
          p_key_id, v_key.rate_limit, v_key.rate_period, v_key.rate_step, p_requests) as spent;
    end if;
    perform job_queue.check_scope(v_key.scopes, p_function);
    if v_key.queues is not null then
      perform job_queue.check_key_queues(
        v_key.queues, p_function, p_queues, p_job_ids, p_claim_ids);
    end if;
  end if;
  return next;
end
$$;

comment on function job_queue.authorize(text, bytea, text, text[], uuid[], bigint[], integer) is
  'Returns one row if the API key may call p_function, or read the view of that name, about these '
  'queues, jobs and claims: client, whose key it is; queues, those asked for or, if none were, '
  'those that the key is restricted to (null: all); and how its rate limit stands, if it has one: '
  'rate_remaining requests are left, and all are there again after rate_reset. p_key_hash: the '
  'SHA-256 of the whole key. With a null p_key_id nothing is checked. p_requests: as how many '
  'requests the call counts, when it answers several at once. Errors: JQ008 if the key is '
  'unknown, wrong, expired or revoked, JQ009 if it does not allow this, JQ010 if its rate limit '
  'is used up, with the seconds to wait as the detail, JQ002 for a job of a queue that the key is '
  'not for.';

revoke execute on function job_queue.authorize(text, bytea, text, text[], uuid[], bigint[], integer)
  from public;

select job_queue.grant_roles();
