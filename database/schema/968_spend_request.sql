-- Changes no job: takes requests from the rate limit of an API key, all of them or none.
--
-- The generic cell rate algorithm, as for queues (tokens_used_until), but with nextval: each
-- request moves the clock on by a step, so that none is lost and nobody waits for anybody. Between
-- the look and the step others may step too. So, at the limit, as many requests too many may pass
-- as are made at the same moment; those after them wait the longer for it. Only where the clock is
-- set, at the first request after a period without any, can steps of that same moment be lost.
--
-- A clock further ahead than a period was set before the server's clock was put back.

create function job_queue.spend_request(
  p_key_id text,
  p_limit integer,
  p_period interval,
  p_step bigint,
  p_requests integer
)
returns table (
  remaining integer,
  reset interval
)
language plpgsql
volatile
rows 1
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock regclass := format('job_queue.key_clock_%s', p_key_id)::regclass;
  v_now bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  v_period bigint := p_step * p_limit;
  v_used_until bigint := coalesce(pg_sequence_last_value(v_clock), 0);
begin
  if v_used_until not between v_now - v_period and v_now + v_period then
    v_used_until := setval(v_clock, v_now - v_period);
  end if;
  if v_used_until + p_step * p_requests > v_now then
    raise exception using
      errcode = 'JQ010',
      message = format('too many requests: the API key may make %s in %s', p_limit, p_period),
      detail = round((v_used_until + p_step * p_requests - v_now) / 1000000.0, 6)::text,
      hint = 'Wait as many seconds as the detail says.';
  end if;

  select max(nextval(v_clock)) into v_used_until from generate_series(1, p_requests);
  return query select
    greatest((v_now - v_used_until) / p_step, 0)::integer,
    make_interval(secs => (v_used_until - v_now + v_period) / 1000000.0);
end
$$;

comment on function job_queue.spend_request(text, integer, interval, bigint, integer) is
  'Returns how many requests are left, and in what time all will be there again. Private to this '
  'schema. Errors: JQ010 if there are not p_requests left.';

revoke execute on function job_queue.spend_request(text, integer, interval, bigint, integer)
  from public;
