-- Appends job_queue to the database's default search_path, so that `select claim_next_job()` works
-- in a new session as it stands. Last in the path, it can shadow nothing. Only the database's owner
-- may do this; for anybody else the names stay qualified: `select job_queue.claim_next_job()`.

do $$
declare
  v_search_path text;
begin
  if not (
    select pg_catalog.pg_has_role(datdba, 'usage')
      from pg_catalog.pg_database
     where datname = pg_catalog.current_database()
  ) then
    raise notice 'search_path left as it is: % does not own database %',
      current_user, pg_catalog.current_database();
    return;
  end if;

  select coalesce(
    (select substr(option, length('search_path=') + 1)
       from pg_catalog.pg_db_role_setting as setting
       join pg_catalog.pg_database as database on database.oid = setting.setdatabase
      cross join unnest(setting.setconfig) as option
      where database.datname = pg_catalog.current_database()
        and setting.setrole = 0
        and option like 'search_path=%'),
    (select case when source = 'configuration file' then reset_val else boot_val end
       from pg_catalog.pg_settings
      where name = 'search_path'))
    into v_search_path;

  execute format(
    'alter database %I set search_path = %s',
    current_database(),
    concat_ws(', ', nullif(v_search_path, '""'), 'job_queue'));
end
$$;
