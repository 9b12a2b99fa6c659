-- depends: 0181_revoke_api_key

-- Changes nothing.
--
-- Volatile, so that one statement can make a key and return what is known of it.

create function job_queue.list_api_keys(
  p_key_id text default null
)
returns table (
  key_id text,
  name text,
  scopes text[],
  queues text[],
  rate_limit integer,
  rate_period interval,
  created_at timestamptz,
  created_by text,
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz
)
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select
    key.key_id,
    key.name,
    key.scopes,
    key.queues,
    key.rate_limit,
    key.rate_period,
    key.created_at,
    key.created_by,
    key.expires_at,
    key.revoked_at,
    key.last_used_at
    from job_queue.api_keys as key
   where p_key_id is null
      or key.key_id = p_key_id
   order by key.created_at, key.key_id
$$;

comment on function job_queue.list_api_keys(text) is
  'Returns what is known of all API keys, or of one, also of expired and revoked ones, oldest '
  'first; not the keys themselves, which nobody knows. last_used_at: give or take a minute.';

revoke execute on function job_queue.list_api_keys(text) from public;

select job_queue.grant_roles();
