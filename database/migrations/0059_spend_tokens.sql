-- depends: 0058_tokens_used_until

-- Changes no job: takes tokens from the bucket of a queue's rate limit.
--
-- Of two transactions that want tokens, one gets the advisory lock, which it holds until it ends;
-- for the other there are none just now. Tokens that are spent stay spent if the caller rolls back.

create function job_queue.spend_tokens(
  p_queue_id integer,
  p_limit integer,
  p_period interval,
  p_count integer
)
returns integer
language plpgsql
volatile
strict
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock text := format('job_queue.rate_clock_%s', p_queue_id);
  v_now timestamptz := clock_timestamp();
  v_used_until timestamptz;
begin
  if not pg_try_advisory_xact_lock(hashtextextended(v_clock, 0)) then
    return 0;
  end if;

  v_used_until := job_queue.tokens_used_until(p_queue_id, p_period, v_now)
    + make_interval(secs => extract(epoch from p_period) * p_count / p_limit);
  if p_count > 0 then
    perform setval(v_clock::regclass, ceil(extract(epoch from v_used_until) * 1000000)::bigint);
  end if;
  return floor(
    extract(epoch from v_now - v_used_until) * p_limit / extract(epoch from p_period))::integer;
end
$$;

comment on function job_queue.spend_tokens(integer, integer, interval, integer) is
  'Takes p_count tokens, which the caller knows to be there, and returns how many are left; '
  'null if there is no limit. Private to this schema.';

revoke execute on function job_queue.spend_tokens(integer, integer, interval, integer) from public;
