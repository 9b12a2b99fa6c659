-- depends: 0034_attempt_of_events

-- Adds only, so that workers of the version before run on. One table a migration: a transaction
-- that locked two of them could deadlock with theirs.

set local lock_timeout = '5s';

alter table job_queue.jobs
  alter column id set default job_queue.new_job_id(),
  add column concurrency_key text,
  add column waits_for_key boolean not null default false,
  add column failed_at timestamptz,
  add column depends_on uuid[],
  drop constraint jobs_status_is_known,
  add constraint jobs_status_is_known
    check (status in ('blocked', 'queued', 'running', 'succeeded', 'failed', 'cancelled'))
    not valid,
  drop constraint jobs_are_claimable_while_queued,
  add constraint jobs_are_claimable_while_queued
    check (claimable = (status = 'queued' and not waits_for_key)
           and (status = 'queued' or not waits_for_key))
    not valid;

create index jobs_waiting_for_key_idx
  on job_queue.jobs (queue, concurrency_key, priority, run_at, seq)
  where waits_for_key;

create index jobs_failed_idx on job_queue.jobs (failed_at, id) where failed_at is not null;

comment on table job_queue.jobs is
  'One row for each job, from enqueue_job on until run_maintenance prunes it. Written by the '
  'functions of this schema only.';
comment on column job_queue.jobs.status is
  'blocked, queued, running, succeeded, failed or cancelled.';
comment on column job_queue.jobs.unique_key is
  'At most one job with this key in its queue is blocked, queued or running at any time.';
comment on column job_queue.jobs.held_key is
  'unique_key until the job ends, then null: what jobs_held_key_idx keeps unique. '
  'A job without a key then leaves that index alone when it ends.';
comment on column job_queue.jobs.concurrency_key is
  'Of the jobs of one queue with this key, at most queues.key_concurrency_limit run at once.';
comment on column job_queue.jobs.waits_for_key is
  'Whether the job, though queued and due, was set aside because its concurrency key was at its '
  'limit. The end of a run with that key, or the next recovery, puts it back in its place.';
comment on column job_queue.jobs.failed_at is
  'When the job failed for good. Null unless it is failed.';
comment on column job_queue.jobs.depends_on is
  'The jobs whose success it was to wait for.';
comment on index job_queue.jobs_waiting_for_key_idx is
  'The jobs set aside, in the order in which they are put back.';
comment on index job_queue.jobs_failed_idx is
  'The dead letters, in the order in which they failed.';

insert into job_queue.job_transitions (from_status, verb, to_status)
values
  (null, 'enqueue', 'blocked'),
  ('blocked', 'unblock', 'queued'),
  ('blocked', 'cancel', 'cancelled'),
  ('running', 'time_out', 'queued'),
  ('running', 'time_out', 'failed'),
  ('running', 'time_out', 'cancelled');

drop trigger jobs_change_status_as_job_transitions_says on job_queue.jobs;

create trigger jobs_change_status_as_job_transitions_says
  before update of status on job_queue.jobs
  for each row
  when (
    old.status <> new.status
    and old.status || ' -> ' || new.status <> all (
      '{queued -> running, running -> succeeded, running -> failed, running -> queued,
        running -> cancelled, queued -> cancelled, failed -> queued, cancelled -> queued,
        blocked -> queued, blocked -> cancelled}'::text[]
    )
  )
  execute function job_queue.refuse_transition();

comment on trigger jobs_change_status_as_job_transitions_says on job_queue.jobs is
  'Refuses a change of status that job_transitions does not list.';
