-- Changes nothing: says which argument of a function is wrong.

create function job_queue.raise_invalid_argument(
  p_name text,
  p_value text,
  p_hint text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'JQ001',
    message = format('invalid %s: %s', p_name, coalesce(p_value, 'null')),
    hint = p_hint;
end
$$;

comment on function job_queue.raise_invalid_argument(text, text, text) is
  'Raises JQ001. Private to this schema.';

revoke execute on function job_queue.raise_invalid_argument(text, text, text) from public;
