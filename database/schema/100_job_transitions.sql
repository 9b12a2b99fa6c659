-- The state machine, as data, and a trigger that holds everybody to it, the owner's stray update
-- too.
--
-- The condition repeats the pairs of the table, so that a legal update calls nothing; a test holds
-- the one against the other.

create table job_queue.job_transitions (
  from_status text,
  verb text not null,
  to_status text not null,

  constraint job_transitions_are_distinct unique nulls not distinct (from_status, verb, to_status)
);

comment on table job_queue.job_transitions is
  'Every way in which a job''s status may change. Read it; only a migration may write it.';
comment on column job_queue.job_transitions.from_status is
  'The status before. Null: the job is new.';
comment on column job_queue.job_transitions.verb is
  'What was done, as job_events calls it.';
comment on column job_queue.job_transitions.to_status is
  'The status after.';

insert into job_queue.job_transitions (from_status, verb, to_status)
values
  (null, 'enqueue', 'queued'),
  (null, 'enqueue', 'blocked'),
  ('blocked', 'unblock', 'queued'),
  ('blocked', 'cancel', 'cancelled'),
  ('queued', 'claim', 'running'),
  ('running', 'complete', 'succeeded'),
  ('running', 'fail', 'failed'),
  ('running', 'fail', 'queued'),
  ('running', 'fail', 'cancelled'),
  ('running', 'time_out', 'queued'),
  ('running', 'time_out', 'failed'),
  ('running', 'time_out', 'cancelled'),
  ('running', 'snooze', 'queued'),
  ('running', 'snooze', 'cancelled'),
  ('running', 'release', 'queued'),
  ('running', 'release', 'cancelled'),
  ('running', 'reclaim', 'queued'),
  ('running', 'reclaim', 'failed'),
  ('running', 'reclaim', 'cancelled'),
  ('running', 'cancel', 'running'),
  ('queued', 'cancel', 'cancelled'),
  ('failed', 'retry', 'queued'),
  ('cancelled', 'retry', 'queued');
