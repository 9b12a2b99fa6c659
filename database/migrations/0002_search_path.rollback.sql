do $$
declare
  v_search_path text;
begin
  select regexp_replace(substr(option, length('search_path=') + 1), '(, )?job_queue$', '')
    into v_search_path
    from pg_catalog.pg_db_role_setting as setting
    join pg_catalog.pg_database as database on database.oid = setting.setdatabase
   cross join unnest(setting.setconfig) as option
   where database.datname = pg_catalog.current_database()
     and setting.setrole = 0
     and option ~ '^search_path=(.*, )?job_queue$';

  if v_search_path = (select boot_val from pg_catalog.pg_settings where name = 'search_path') then
    execute format('alter database %I reset search_path', current_database());
  elsif v_search_path is not null then
    execute format(
      'alter database %I set search_path = %s',
      current_database(),
      coalesce(nullif(v_search_path, ''), quote_literal('')));
  end if;
end
$$;
