-- depends: 0180_create_api_key

-- Changes no job: revokes an API key, for good.

create function job_queue.revoke_api_key(
  p_key_id text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  update job_queue.api_keys as key
     set revoked_at = coalesce(key.revoked_at, clock_timestamp())
   where key.key_id = p_key_id;
  if not found then
    raise exception using
      errcode = 'JQ002',
      message = format('API key %s does not exist', coalesce(p_key_id, 'null')),
      hint = 'Pass the key_id that create_api_key returned: list_api_keys shows those that do.';
  end if;
end
$$;

comment on function job_queue.revoke_api_key(text) is
  'Makes the API key invalid from now on; one that was revoked before stays so. Errors: JQ002 no '
  'such key.';

revoke execute on function job_queue.revoke_api_key(text) from public;

select job_queue.grant_roles();
