-- Changes no job: notes, at most once a minute, that the key was used.
--
-- An unknown key costs the same work as a wrong secret, and all that can be wrong with a key is one
-- and the same error: nobody learns which keys there are. What is compared are hashes of the two
-- hashes with a random number, so that the time of the comparison tells nothing of either.
--
-- A row that is locked, because somebody else is just noting the same, is passed over.

create function job_queue.check_api_key(
  p_key_id text,
  p_key_hash bytea
)
returns table (
  scopes text[],
  queues text[],
  rate_limit integer,
  rate_period interval,
  rate_step bigint
)
language plpgsql
volatile
rows 1
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_nonce bytea := uuid_send(gen_random_uuid());
  v_key record;
begin
  select key.*
    into v_key
    from (values (1)) as always
    left join job_queue.api_keys as key on key.key_id = p_key_id;
  if (sha256(coalesce(v_key.secret_hash, '') || v_nonce) = sha256(p_key_hash || v_nonce)
      and v_key.revoked_at is null
      and coalesce(v_key.expires_at > v_now, true)
      and v_key.key_id is not null) is not true
  then
    raise exception using
      errcode = 'JQ008',
      message = 'the API key is not valid',
      hint = 'Pass a key that create_api_key has made, and that neither expired nor was revoked.';
  end if;

  if coalesce(v_key.last_used_at < v_now - interval '1 minute', true) then
    update job_queue.api_keys as key
       set last_used_at = v_now
     where key.key_id = (
       select unlocked.key_id
         from job_queue.api_keys as unlocked
        where unlocked.key_id = p_key_id
          and coalesce(unlocked.last_used_at < v_now - interval '1 minute', true)
          for no key update skip locked);
  end if;
  return query select
    v_key.scopes, v_key.queues, v_key.rate_limit, v_key.rate_period, v_key.rate_step;
end
$$;

comment on function job_queue.check_api_key(text, bytea) is
  'Returns what the key is good for. p_key_hash: the SHA-256 of the whole key. Private to this '
  'schema. Errors: JQ008 if it is unknown, wrong, expired or revoked.';

revoke execute on function job_queue.check_api_key(text, bytea) from public;
