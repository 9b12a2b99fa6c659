-- The roles stay: they belong to the whole server, and another database may use them.

do $$
declare
  v_role text;
begin
  for v_role in
    select rolname
      from pg_catalog.pg_roles
     where rolname in ('job_queue_client', 'job_queue_worker', 'job_queue_operator')
  loop
    execute format('revoke all on all functions in schema job_queue from %I', v_role);
    execute format('revoke all on all tables in schema job_queue from %I', v_role);
    execute format('revoke all on schema job_queue from %I', v_role);
  end loop;
end
$$;

drop function job_queue.grant_roles();
