-- depends: 0033_slots_and_progress

-- Adds only, so that workers of the version before run on. One table a migration: a transaction
-- that locked two of them could deadlock with theirs.

set local lock_timeout = '5s';

alter table job_queue.job_events
  add column attempt integer;

comment on table job_queue.job_events is
  'One line for each change of a job''s status. Only ever added to, and pruned with the job.';
comment on column job_queue.job_events.claim_id is
  'The claim under which it was done. Null if it was done under none.';
comment on column job_queue.job_events.detail is
  'What else there is to know: {"worker": text} of claim, {"error": text} of fail, reclaim and '
  'time_out, {"reason": text} of a cancel that a parent caused, {"result": json} that retry took '
  'away, {"schedule": text, "tick": time} of an enqueue by a schedule.';
comment on column job_queue.job_events.attempt is
  'Which attempt at the job it was part of, from 1 on. Null if it was part of none.';
