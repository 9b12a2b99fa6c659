-- depends: 0191_sweep_due

-- Where to begin to look for the next job of a lane that has become slow to search.
--
-- A lane is a queue, a job type and a priority: the jobs that jobs_lanes_idx holds together, in
-- order. What has been claimed leaves dead entries at its beginning until a vacuum may remove them;
-- as long as any old snapshot is held, none may, and whoever searches walks over all of them.
-- Whoever had far to go notes the lane here (move_marks). The mark itself is kept in two sequences
-- beside each row, which are written in place: no dead rows, no lock, no rollback.
--
-- A mark is a hint. What was queued before it, because its transaction committed late, a claim
-- rolled back or a run was handed back, is found by sweep_marks, which looks from the beginning.

create table job_queue.marks (
  queue text not null,
  job_type text not null,
  priority smallint not null,
  mark_id integer not null generated always as identity,
  is_set boolean not null default true,

  constraint marks_pkey primary key (queue, job_type, priority)
);

comment on table job_queue.marks is
  'The lanes (queue, job type and priority) that were once slow to search from their beginning. '
  'job_queue.mark_run_at_<mark_id> and job_queue.mark_seq_<mark_id> say from where on to look.';
comment on column job_queue.marks.queue is
  'As in jobs.';
comment on column job_queue.marks.job_type is
  'As in jobs.';
comment on column job_queue.marks.priority is
  'As in jobs.';
comment on column job_queue.marks.mark_id is
  'What the names of the sequences end with.';
comment on column job_queue.marks.is_set is
  'Whether the lane has a mark now. False: it is searched from its beginning.';
