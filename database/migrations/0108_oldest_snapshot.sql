-- depends: 0107_workers

-- Changes nothing.

create function job_queue.oldest_snapshot(
  out held_since timestamptz,
  out holder text
)
returns setof record
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select holders.held_since, holders.holder
    from (
      select
        session.xact_start,
        format('session %s of %s (%s, %s): %s', session.pid, session.usename,
               coalesce(nullif(session.application_name, ''), session.backend_type),
               session.state, left(session.query, 100)),
        greatest(age(session.backend_xmin), age(session.backend_xid))
        from pg_stat_activity as session
       where coalesce(session.backend_xmin, session.backend_xid) is not null
         and session.pid <> pg_backend_pid()
         and session.backend_type <> 'autovacuum worker'
         and coalesce(session.datname, current_database()) = current_database()
      union all
      select prepared.prepared, format('prepared transaction %s', prepared.gid),
             age(prepared.transaction)
        from pg_prepared_xacts as prepared
      union all
      select null, format('replication slot %s', slot.slot_name), age(slot.xmin)
        from pg_replication_slots as slot
       where slot.xmin is not null
    ) as holders (held_since, holder, age)
   order by holders.age desc
   limit 1
$$;

comment on function job_queue.oldest_snapshot() is
  'What holds the xmin horizon back: since when (null: a replication slot does) and who. Sees the '
  'sessions of other roles if its owner is a member of pg_read_all_stats. Private to this schema.';

revoke execute on function job_queue.oldest_snapshot() from public;
