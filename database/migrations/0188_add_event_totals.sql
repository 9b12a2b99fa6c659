-- depends: 0187_event_totals

-- Changes no job: adds a range of events to their totals.
--
-- The claim that a run began with is most often the event before the one that ends it.

create function job_queue.add_event_totals(
  p_after bigint,
  p_until bigint
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
  insert into job_queue.event_totals as total (queue, verb, to_status, events, run_seconds)
  select
    job.queue,
    event.verb,
    event.to_status,
    count(*),
    coalesce(sum(extract(epoch from event.at - begun.at)::double precision), 0)
    from job_queue.job_events as event
    join job_queue.jobs as job on job.id = event.job_id
    left join lateral (
      select earlier.at
        from job_queue.job_events as earlier
       where event.from_status = 'running'
         and event.to_status <> 'running'
         and earlier.job_id = event.job_id
         and earlier.event_id < event.event_id
         and earlier.verb = 'claim'
       order by earlier.event_id desc
       limit 1
    ) as begun on true
   where event.event_id > p_after
     and event.event_id <= p_until
   group by job.queue, event.verb, event.to_status
  on conflict (queue, verb, to_status) do update
     set events = total.events + excluded.events,
         run_seconds = total.run_seconds + excluded.run_seconds;
end
$$;

comment on function job_queue.add_event_totals(bigint, bigint) is
  'Adds the events beyond p_after, up to p_until, to event_totals. Private to this schema.';

revoke execute on function job_queue.add_event_totals(bigint, bigint) from public;
