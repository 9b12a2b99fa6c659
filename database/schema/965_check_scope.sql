-- Changes nothing.
--
-- There is no second list of rights: a scope may do what its group role may. Where that role does
-- not exist, the scope may do nothing.

create function job_queue.check_scope(
  p_scopes text[],
  p_function text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := 'job_queue.' || quote_ident(nullif(p_function, ''));
  v_role oid;
  v_scope text;
begin
  foreach v_scope in array p_scopes loop
    v_role := to_regrole('job_queue_' || v_scope);
    if has_function_privilege(v_role, to_regproc(v_name), 'execute')
      or has_table_privilege(v_role, to_regclass(v_name), 'select')
    then
      return;
    end if;
  end loop;

  raise exception using
    errcode = 'JQ009',
    message = format('the API key does not allow %s', coalesce(p_function, 'null')),
    hint = format('Its scopes are %s. Use one that has another.',
                  array_to_string(p_scopes, ' and '));
end
$$;

comment on function job_queue.check_scope(text[], text) is
  'Raises JQ009 unless one of the scopes may execute the function, or read the view, of that name. '
  'Private to this schema.';

revoke execute on function job_queue.check_scope(text[], text) from public;
