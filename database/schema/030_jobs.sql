-- The record of each job. Only the functions of this schema write it.
--
-- The CHECK ties columns to the status. What a job is at birth and never changes is checked by
-- enqueue_job and enqueue_jobs alone: Postgres prepares and evaluates every CHECK on every update.
--
-- status stands in no index and in no index predicate: running -> succeeded can then stay on its
-- page (heap-only tuple), for which fillfactor leaves room.

create table job_queue.jobs (
  id uuid not null default job_queue.new_job_id(),
  status text not null default 'queued',
  sleep_seconds integer not null default 3,
  message text,
  result jsonb,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  job_type text not null default 'sleep',
  payload jsonb not null default '{}',
  queue text not null default 'default',
  priority smallint not null default 1,
  run_at timestamptz not null default clock_timestamp(),
  attempts integer not null default 0,
  max_attempts integer not null default 1,
  retry_delay interval not null default '15 seconds',
  retry_delay_max interval not null default '1 hour',
  cancel_requested boolean not null default false,
  timeout interval,
  unique_key text,
  held_key text,
  losses integer not null default 0,
  max_losses integer not null default 3,
  seq bigint not null generated always as identity,
  claimable boolean not null default true,
  concurrency_key text,
  waits_for_key boolean not null default false,
  failed_at timestamptz,
  depends_on uuid[],
  trace_context jsonb,

  constraint jobs_pkey primary key (id),
  constraint jobs_fit_their_status
    check (job_queue.is_consistent(
      status, claimable, waits_for_key, failed_at is not null, result is not null))
) with (fillfactor = 80);

create index jobs_lanes_idx on job_queue.jobs (queue, job_type, priority, run_at, seq)
  where claimable;

create unique index jobs_held_key_idx on job_queue.jobs (queue, held_key)
  where held_key is not null;

create index jobs_unique_key_idx on job_queue.jobs (unique_key, id) where unique_key is not null;

create index jobs_waiting_for_key_idx
  on job_queue.jobs (queue, concurrency_key, priority, run_at, seq)
  where waits_for_key;

create index jobs_failed_idx on job_queue.jobs (failed_at, id) where failed_at is not null;

comment on table job_queue.jobs is
  'One row for each job, from enqueue_job on until run_maintenance prunes it. Written by the '
  'functions of this schema only.';
comment on column job_queue.jobs.id is
  'UUID version 7 (RFC 9562): sorts by time of creation.';
comment on column job_queue.jobs.status is
  'blocked, queued, running, succeeded, failed or cancelled.';
comment on column job_queue.jobs.sleep_seconds is
  'How long the job sleeps, in seconds, from 0 to 86400.';
comment on column job_queue.jobs.message is
  'A text that the job echoes in its result, at most 10000 characters.';
comment on column job_queue.jobs.result is
  'What the worker handed to complete_job or, of a failed job, {"error": text}. Null until the job '
  'ends.';
comment on column job_queue.jobs.created_at is
  'When enqueue_job was called.';
comment on column job_queue.jobs.updated_at is
  'When status last changed.';
comment on column job_queue.jobs.job_type is
  'What is to be done: the name by which a worker knows how. sleep is the worker''s own.';
comment on column job_queue.jobs.payload is
  'The input of the work, at most 4 MiB.';
comment on column job_queue.jobs.queue is
  'The lane in which the job waits.';
comment on column job_queue.jobs.priority is
  'Within its queue: 0 runs first, 3 last.';
comment on column job_queue.jobs.run_at is
  'Not before this time. Of two jobs of one priority the earlier runs first.';
comment on column job_queue.jobs.attempts is
  'How often the job has been claimed, not counting claims that were handed back, snoozed or lost.';
comment on column job_queue.jobs.max_attempts is
  'A failed attempt is followed by another while attempts is lower than this.';
comment on column job_queue.jobs.retry_delay is
  'How long the wait before the second attempt may be; doubled for each further one.';
comment on column job_queue.jobs.retry_delay_max is
  'How long the wait before any attempt may be.';
comment on column job_queue.jobs.cancel_requested is
  'Whether cancel_job wants the run to stop. However it ends then, but for success, the job is '
  'cancelled.';
comment on column job_queue.jobs.timeout is
  'How long one attempt may run, however alive its worker is. Null: for ever.';
comment on column job_queue.jobs.unique_key is
  'At most one job with this key in its queue is blocked, queued or running at any time.';
comment on column job_queue.jobs.held_key is
  'unique_key until the job ends, then null: what jobs_held_key_idx keeps unique. '
  'A job without a key then leaves that index alone when it ends.';
comment on column job_queue.jobs.losses is
  'How often a claim on the job ran out because its worker died.';
comment on column job_queue.jobs.max_losses is
  'After how many losses the job fails instead of running again; 0 is 1, and means at most once.';
comment on column job_queue.jobs.seq is
  'Order of arrival, which decides between jobs of one priority and one run_at.';
comment on column job_queue.jobs.claimable is
  'Whether claim_next_job may take the job. The predicate of the index that it walks.';
comment on column job_queue.jobs.concurrency_key is
  'Of the jobs of one queue with this key, at most queues.key_concurrency_limit run at once.';
comment on column job_queue.jobs.waits_for_key is
  'Whether the job, though queued and due, was set aside because its concurrency key was at its '
  'limit. The end of a run with that key, or the next recovery, puts it back in its place.';
comment on column job_queue.jobs.failed_at is
  'When the job failed for good. Null unless it is failed.';
comment on column job_queue.jobs.depends_on is
  'The jobs whose success it was to wait for.';
comment on column job_queue.jobs.trace_context is
  'The trace that the job belongs to, as whoever enqueued it has it: W3C Trace Context, such as '
  '{"traceparent": "00-...-01", "tracestate": "..."}. Null: none.';
comment on index job_queue.jobs_lanes_idx is
  'The waiting jobs, lane by lane, in the order in which claim_next_job takes them. Holds no '
  'finished job.';
comment on index job_queue.jobs_held_key_idx is
  'At most one unfinished job for each queue and unique key.';
comment on index job_queue.jobs_unique_key_idx is
  'What has become of the jobs with a unique key.';
comment on index job_queue.jobs_waiting_for_key_idx is
  'The jobs set aside, in the order in which they are put back.';
comment on index job_queue.jobs_failed_idx is
  'The dead letters, in the order in which they failed.';
