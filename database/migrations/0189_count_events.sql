-- depends: 0188_add_event_totals

-- Changes no job: counts the events that have come since somebody last asked.
--
-- Of several that ask at once, one gets the advisory lock and counts; the others do not wait, and
-- return what is counted so far.
--
-- It counts only what settled_events says is complete, and goes that way first, before it writes
-- anything: settled_events does not begin to wait in a transaction that has.

create function job_queue.count_events()
returns table (
  queue text,
  verb text,
  to_status text,
  events bigint,
  run_seconds double precision
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_from bigint;
  v_last bigint;
  v_cursor record;
begin
  if pg_try_advisory_xact_lock(hashtextextended('job_queue count_events', 0)) then
    select known.until, known.gap_until, known.gap_xid
      into v_cursor
      from (values (1)) as always
      left join job_queue.event_cursor as known on true;
    v_from := v_cursor.until;
    for v_page in 1..5 loop
      v_last := v_cursor.until;
      select settled.until, settled.gap_until, settled.gap_xid
        into v_cursor
        from job_queue.settled_events(
          v_last, 20000, v_cursor.gap_until, v_cursor.gap_xid) as settled;
      exit when (v_cursor.until > v_last) is not true;
    end loop;

    if v_cursor.until > v_from then
      perform job_queue.add_event_totals(v_from, v_cursor.until);
    end if;
    insert into job_queue.event_cursor (until, gap_until, gap_xid)
    values (v_cursor.until, v_cursor.gap_until, v_cursor.gap_xid)
    on conflict (is_only) do update
       set until = excluded.until,
           gap_until = excluded.gap_until,
           gap_xid = excluded.gap_xid;
  end if;

  return query
    select total.queue, total.verb, total.to_status, total.events, total.run_seconds
      from job_queue.event_totals as total
     order by total.queue, total.verb, total.to_status;
end
$$;

comment on function job_queue.count_events() is
  'Returns how many events of each kind there have been in each queue since it was first called, '
  'and how long the runs have taken that ended with them: counters that only grow. An event may '
  'come to them late, while others that were written before it are not committed, but is not '
  'missed; save those of jobs that are pruned before anybody asks. Counts 100000 at a time. Call '
  'it in a transaction of its own, as settled_events.';

revoke execute on function job_queue.count_events() from public;

select job_queue.grant_roles();
