-- The history: one line for each change of status, written by the function that makes the change,
-- in the same transaction. Nothing updates it.
--
-- No foreign key to jobs: its checks would lock the job's row once more for each line.

create table job_queue.job_events (
  event_id bigint not null generated always as identity,
  job_id uuid not null,
  at timestamptz not null default clock_timestamp(),
  verb text not null,
  from_status text,
  to_status text not null,
  claim_id bigint,
  actor text not null default session_user,
  detail jsonb,
  attempt integer,

  constraint job_events_pkey primary key (event_id)
);

create index job_events_job_idx on job_queue.job_events (job_id, event_id);

comment on table job_queue.job_events is
  'One line for each change of a job''s status. Only ever added to, and pruned with the job.';
comment on column job_queue.job_events.event_id is
  'Order of the events of one job. Events of different jobs may commit in another order.';
comment on column job_queue.job_events.job_id is
  'The job, jobs.id.';
comment on column job_queue.job_events.at is
  'When it happened.';
comment on column job_queue.job_events.verb is
  'What was done, as job_transitions calls it.';
comment on column job_queue.job_events.from_status is
  'The status before. Null: the job was new.';
comment on column job_queue.job_events.to_status is
  'The status after.';
comment on column job_queue.job_events.claim_id is
  'The claim under which it was done. Null if it was done under none.';
comment on column job_queue.job_events.actor is
  'The role that had logged in.';
comment on column job_queue.job_events.detail is
  'What else there is to know: {"worker": text} of claim, {"error": text} of fail, reclaim and '
  'time_out, {"reason": text} of a cancel that a parent caused, {"result": json} that retry took '
  'away, {"schedule": text, "tick": time} of an enqueue by a schedule.';
comment on column job_queue.job_events.attempt is
  'Which attempt at the job it was part of, from 1 on. Null if it was part of none.';
comment on index job_queue.job_events_job_idx is
  'The history of one job.';
