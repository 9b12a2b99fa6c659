-- depends: 0057_free_key_slot

-- Changes nothing.
--
-- The bucket holds p_limit tokens and is refilled within p_period. It is kept as one number, the
-- time up to which its tokens are used (the generic cell rate algorithm, ITU-T I.371), in the
-- queue's rate clock: never more than a period ago, for it is full then, and in the future only if
-- the server's clock has been put back.

create function job_queue.tokens_used_until(
  p_queue_id integer,
  p_period interval,
  p_now timestamptz
)
returns timestamptz
language sql
volatile
strict
security definer
set search_path = pg_catalog, pg_temp
as $$
  select least(p_now, greatest(
    p_now - make_interval(secs => extract(epoch from p_period)),
    to_timestamp(coalesce(pg_sequence_last_value(
      format('job_queue.rate_clock_%s', p_queue_id)::regclass), 0) / 1000000.0)))
$$;

comment on function job_queue.tokens_used_until(integer, interval, timestamptz) is
  'The time up to which the tokens of the queue''s rate limit are used. Private to this schema.';

revoke execute on function job_queue.tokens_used_until(integer, interval, timestamptz) from public;
