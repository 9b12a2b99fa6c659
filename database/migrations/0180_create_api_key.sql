-- depends: 0179_authorize

-- Changes no job: makes an API key.
--
-- gen_random_uuid draws from the server's cryptographic source: 122 bits of each are random, so
-- that two of them make a secret that nobody guesses, without an extension.

create function job_queue.create_api_key(
  p_name text,
  p_scopes text[],
  p_queues text[] default null,
  p_expires_in interval default null,
  p_rate_limit integer default null,
  p_rate_period interval default '1 minute'
)
returns table (
  key_id text,
  api_key text
)
language plpgsql
volatile
rows 1
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_period interval := coalesce(p_rate_period, '1 minute');
begin
  perform job_queue.raise_invalid_argument(wrong.name, left(wrong.value, 200), wrong.hint)
     from (values
       ('name', p_name, 'Pass a name of 1 to 100 characters.',
        length(p_name) between 1 and 100),
       ('scopes', p_scopes::text, 'Pass an array of client, worker and operator.',
        cardinality(p_scopes) > 0 and p_scopes <@ '{client,worker,operator}'),
       ('queues', p_queues::text, 'Pass names of 1 to 100 characters, or null for all queues.',
        p_queues is null or cardinality(p_queues) > 0 and not exists (
          select
            from unnest(p_queues) as named (queue)
           where length(named.queue) between 1 and 100 is not true)),
       ('expires_in', p_expires_in::text, 'Pass an interval of more than 0, up to 100 years.',
        p_expires_in is null
          or p_expires_in > interval '0' and p_expires_in <= interval '100 years'),
       ('rate_limit', p_rate_limit::text, 'Pass a number from 1 to 1000000.',
        p_rate_limit is null or p_rate_limit between 1 and 1000000),
       ('rate_period', v_period::text,
        'Pass an interval from 1 millisecond to 1 year, of a microsecond for each request or more.',
        v_period between interval '1 millisecond' and interval '1 year'
          and coalesce(extract(epoch from v_period) * 1000000 >= p_rate_limit, true))
     ) as wrong (name, value, hint, is_right)
    where wrong.is_right is not true;

  key_id := left(replace(gen_random_uuid()::text, '-', ''), 12);
  api_key := format(
    'jq_%s_%s', key_id, replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));
  insert into job_queue.api_keys (
    key_id, name, secret_hash, scopes, queues, expires_at, rate_limit, rate_period)
  values (
    key_id, p_name, sha256(api_key::bytea), p_scopes, p_queues, v_now + p_expires_in, p_rate_limit,
    v_period);
  return next;
end
$$;

comment on function job_queue.create_api_key(text, text[], text[], interval, integer, interval) is
  'Makes an API key and returns it, this once: only its hash is kept. p_scopes: client, worker, '
  'operator, for what these group roles may do. p_queues: the only queues that it may touch or '
  'see; null: all, and what concerns no queue. p_expires_in: null: it does not expire. '
  'p_rate_limit: how many requests it may make within p_rate_period; null: any number. Errors: '
  'JQ001 for an argument out of range.';

revoke execute on function
  job_queue.create_api_key(text, text[], text[], interval, integer, interval) from public;

select job_queue.grant_roles();
