-- Changes nothing, but may take a transaction number.
--
-- Events are numbered when they are written, and become visible when their transactions commit: an
-- event may appear below one that a reader has seen. Here is how far a reader may go.
--
-- Numbers without a gap are settled. A gap belongs to a transaction that is under way, or to one
-- that has rolled back, or was pruned. Whoever wrote an event had a transaction number before it
-- took the event's, because every verb locks or writes a job first. So once an event is visible,
-- all transactions to which lower numbers can belong have transaction numbers below one that is
-- taken now (gap_xid); and once none below that is under way, what is still missing never comes.
--
-- Volatile, because each of its steps needs to see what was committed before that step: first how
-- far the transactions are, and only then the events.

create or replace function job_queue.settled_events(
  p_after bigint,
  p_limit integer default 1000,
  p_gap_until bigint default null,
  p_gap_xid bigint default null
)
returns table (
  until bigint,
  gap_until bigint,
  gap_xid bigint
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
rows 1
as $$
declare
  v_settled bigint := p_after;
  v_page record;
begin
  if p_after is null then
    until := coalesce((select max(event.event_id) from job_queue.job_events as event), 0);
    return next;
    return;
  end if;

  gap_until := case when p_gap_xid is not null then p_gap_until end;
  gap_xid := p_gap_xid;
  loop
    if pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= gap_xid then
      v_settled := greatest(v_settled, gap_until);
    end if;
    select count(*) as events, max(numbered.event_id) as last,
           max(numbered.event_id) filter (
             where numbered.event_id <= v_settled + numbered.beyond) as gapless
      into v_page
      from (
        select page.event_id,
               count(*) filter (where page.event_id > v_settled)
                 over (order by page.event_id) as beyond
          from (
            select event.event_id
              from job_queue.job_events as event
             where event.event_id > p_after
             order by event.event_id
             limit p_limit
          ) as page
      ) as numbered;
    if v_page.events >= p_limit then
      v_settled := least(v_settled, v_page.last);
    end if;
    until := greatest(v_settled, v_page.gapless);

    exit when until < gap_until;
    gap_until := null;
    gap_xid := null;
    exit when (until < v_page.last) is not true;
    exit when pg_current_xact_id_if_assigned() is not null;
    v_settled := until;
    gap_until := v_page.last;
    gap_xid := pg_current_xact_id()::text::bigint;
  end loop;
  return next;
end
$$;

comment on function job_queue.settled_events(bigint, integer, bigint, bigint) is
  'How far whoever has read the events up to p_after may read on and miss none: every event up to '
  'until is visible now or never will be, and there are at most p_limit to read. Pass until as the '
  'next p_after, and gap_until and gap_xid, which say what is being waited for, as p_gap_until and '
  'p_gap_xid. Without p_after: the last event that is visible; of those that were being written '
  'just then some may be missed. Call it in a transaction of its own: one that has written '
  'anything does not begin to wait, and so does not get past a gap.';

revoke execute on function job_queue.settled_events(bigint, integer, bigint, bigint) from public;
