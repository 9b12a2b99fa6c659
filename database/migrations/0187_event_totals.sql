-- depends: 0186_run_maintenance

-- How many events there have been, for those who draw curves of it. count_events writes both
-- tables: whoever asks counts what has come since somebody last asked, and whoever does the work
-- pays nothing.

create table job_queue.event_totals (
  queue text not null,
  verb text not null,
  to_status text not null,
  events bigint not null,
  run_seconds double precision not null,

  constraint event_totals_pkey primary key (queue, verb, to_status)
) with (fillfactor = 50);

create table job_queue.event_cursor (
  is_only boolean not null default true,
  until bigint not null,
  gap_until bigint,
  gap_xid bigint,

  constraint event_cursor_pkey primary key (is_only),
  constraint event_cursor_is_one_row check (is_only)
) with (fillfactor = 50);

comment on table job_queue.event_totals is
  'How many events of each kind there have been since count_events was first called. Only ever '
  'grows.';
comment on column job_queue.event_totals.queue is
  'The queue of their jobs.';
comment on column job_queue.event_totals.verb is
  'As in job_events.';
comment on column job_queue.event_totals.to_status is
  'As in job_events.';
comment on column job_queue.event_totals.events is
  'How many there have been.';
comment on column job_queue.event_totals.run_seconds is
  'How long the runs have taken, together, that ended with them. 0 for events that end no run.';
comment on table job_queue.event_cursor is
  'How far count_events has come: one row, or none before its first call.';
comment on column job_queue.event_cursor.is_only is
  'Always true: there is one row at most.';
comment on column job_queue.event_cursor.until is
  'The last of job_events that is counted.';
comment on column job_queue.event_cursor.gap_until is
  'What settled_events waits for.';
comment on column job_queue.event_cursor.gap_xid is
  'What settled_events waits for.';
