-- The claims that hold now: one narrow row for each running job, inserted by claim_next_job,
-- deleted by whatever ends the run. No foreign key to jobs: its checks would cost every claim a
-- second row lock, and claim_next_job holds the job's row locked while it inserts here.

create table job_queue.claims (
  claim_id bigint not null generated always as identity,
  job_id uuid not null,
  worker text,
  claimed_at timestamptz not null default clock_timestamp(),
  lease interval not null,
  expires_at timestamptz not null,
  deadline_at timestamptz,

  constraint claims_pkey primary key (claim_id),
  constraint claims_hold_each_job_once unique (job_id),
  constraint claims_have_a_lease check (lease between interval '1 millisecond' and interval '1 day')
) with (fillfactor = 70);

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
