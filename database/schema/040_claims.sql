-- The claims that hold now: one narrow row for each running job, inserted by claim_next_job,
-- deleted by whatever ends the run. In a queue with a limit the claim also takes a numbered slot,
-- which two claims cannot have at once, and which is free again when the claim is gone. No foreign
-- key to jobs: its checks would cost every claim a second row lock, and claim_next_job holds the
-- job's row locked while it inserts here.

create table job_queue.claims (
  claim_id bigint not null generated always as identity,
  job_id uuid not null,
  worker text,
  claimed_at timestamptz not null default clock_timestamp(),
  lease interval not null,
  expires_at timestamptz not null,
  deadline_at timestamptz,
  queue text,
  concurrency_key text,
  queue_slot integer,
  key_slot integer,
  progress jsonb,

  constraint claims_pkey primary key (claim_id),
  constraint claims_hold_each_job_once unique (job_id),
  constraint claims_have_a_lease check (lease between interval '1 millisecond' and interval '1 day')
) with (fillfactor = 70);

create unique index claims_take_each_queue_slot_once on job_queue.claims (queue, queue_slot)
  where queue_slot is not null;

create unique index claims_take_each_key_slot_once
  on job_queue.claims (queue, concurrency_key, key_slot)
  where key_slot is not null;

comment on table job_queue.claims is
  'The right of one worker to run one job. A row while the job runs, gone when the run ends.';
comment on column job_queue.claims.claim_id is
  'The fence: a number that is never used again and that complete_job, fail_job, snooze_job and '
  'release_job must name.';
comment on column job_queue.claims.job_id is
  'The running job, jobs.id.';
comment on column job_queue.claims.worker is
  'Who runs the job, as claim_next_job was told.';
comment on column job_queue.claims.claimed_at is
  'When the claim was made.';
comment on column job_queue.claims.lease is
  'How long the worker may be silent.';
comment on column job_queue.claims.deadline_at is
  'When the attempt is over, however alive the worker is: jobs.timeout after the claim. Null: '
  'never.';
comment on column job_queue.claims.expires_at is
  'When the lease runs out unless heartbeat renews it. In no index, so that heartbeats stay cheap.';
comment on column job_queue.claims.queue is
  'The job''s queue, if that has a limit.';
comment on column job_queue.claims.concurrency_key is
  'The job''s concurrency key, if the claim has a slot of that key.';
comment on column job_queue.claims.queue_slot is
  'Which of the queue''s slots the claim has, from 1 on. Null: the queue had no limit.';
comment on column job_queue.claims.key_slot is
  'Which of the key''s slots in this queue the claim has, from 1 on. Null: there was no limit.';
comment on column job_queue.claims.progress is
  'What report_progress was last told.';
comment on index job_queue.claims_take_each_queue_slot_once is
  'What a limit rests on: no two claims have the same slot of a queue.';
comment on index job_queue.claims_take_each_key_slot_once is
  'What a limit rests on: no two claims have the same slot of a key.';
