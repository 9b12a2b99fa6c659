-- When things are due, and how far they have come.
--
-- Sequences and not rows, because a sequence is written in place: whatever the rate, no dead rows,
-- no lock to wait for, and no rollback. They are hints; two workers that both find something due do
-- no harm.

create sequence job_queue.reclaim_due minvalue 0 start 0;
create sequence job_queue.sweep_due minvalue 0 start 0;
create sequence job_queue.maintained_at minvalue 0 start 0;
create sequence job_queue.dependency_cursor minvalue 0 start 0;
create sequence job_queue.prune_cursor minvalue 0 start 0;
create sequence job_queue.put_back_cursor minvalue 0 start 0;
create sequence job_queue.prune_due minvalue 0 start 0;

comment on sequence job_queue.reclaim_due is
  'When claim_next_job next calls recover: microseconds since 1970.';
comment on sequence job_queue.sweep_due is
  'When sweep_marks is next to do anything: microseconds since 1970.';
comment on sequence job_queue.maintained_at is
  'When run_maintenance last came to its end: microseconds since 1970.';
comment on sequence job_queue.dependency_cursor is
  'The last of job_dependencies that settle_dependencies has looked at.';
comment on sequence job_queue.put_back_cursor is
  'How many concurrency keys put_overdue_jobs_back has looked at.';
comment on sequence job_queue.prune_cursor is
  'The last of jobs that prune_jobs has looked at: the time in its id, 4096ths of a millisecond.';
comment on sequence job_queue.prune_due is
  'When prune_jobs begins anew with the oldest job: microseconds since 1970.';
