-- depends: 0037_job_dependencies

-- The policy of each queue that has one. A queue needs no row: one without has all the defaults, as
-- has a column that is null. set_queue, pause_queue and resume_queue write it.
--
-- claim_next_job reads it and writes nothing here. What changes with each claim, the clock of the
-- rate limit, is kept in a sequence beside each row (rate_clock), which is written in place: no
-- dead rows at any rate.

create table job_queue.queues (
  queue text not null,
  paused boolean not null default false,
  concurrency_limit integer,
  key_concurrency_limit integer,
  rate_limit integer,
  rate_period interval not null default '1 minute',
  max_attempts integer,
  retry_delay interval,
  retry_delay_max interval,
  max_losses integer,
  timeout interval,
  keep_succeeded interval,
  keep_failed interval,
  keep_cancelled interval,
  queue_id integer not null generated always as identity,

  constraint queues_pkey primary key (queue),
  constraint queues_have_a_name check (length(queue) between 1 and 100),
  constraint queues_run_some_jobs check (concurrency_limit between 1 and 10000),
  constraint queues_run_some_jobs_of_a_key check (key_concurrency_limit between 1 and 10000),
  constraint queues_start_some_jobs check (rate_limit between 1 and 1000000),
  constraint queues_have_a_period
    check (rate_period between interval '1 millisecond' and interval '1 year'),
  constraint queues_try_at_least_once check (max_attempts >= 1),
  constraint queues_wait_before_a_retry
    check (retry_delay between interval '0' and interval '1 year'),
  constraint queues_wait_within_bounds
    check (retry_delay_max between interval '0' and interval '1 year'),
  constraint queues_count_losses check (max_losses >= 0),
  constraint queues_time_out_later
    check (timeout between interval '1 millisecond' and interval '1 year'),
  constraint queues_keep_succeeded_jobs
    check (keep_succeeded between interval '0' and interval '1000 years'),
  constraint queues_keep_failed_jobs
    check (keep_failed between interval '0' and interval '1000 years'),
  constraint queues_keep_cancelled_jobs
    check (keep_cancelled between interval '0' and interval '1000 years')
);

comment on table job_queue.queues is
  'The policy of each queue that has one. No row, or a null: the default.';
comment on column job_queue.queues.queue is
  'Its name, jobs.queue.';
comment on column job_queue.queues.paused is
  'Whether no job is claimed. Jobs are enqueued all the same, and running ones run on.';
comment on column job_queue.queues.concurrency_limit is
  'How many of its jobs may run at once, from 1 to 10000. Null: any number.';
comment on column job_queue.queues.key_concurrency_limit is
  'How many of its jobs with one concurrency key may run at once, from 1 to 10000. Null: any '
  'number.';
comment on column job_queue.queues.rate_limit is
  'How many of its jobs may start within rate_period, evenly refilled, and at once after a rest: a '
  'token bucket of this size. Null: any number.';
comment on column job_queue.queues.rate_period is
  'The period of rate_limit.';
comment on column job_queue.queues.max_attempts is
  'For jobs that were enqueued without. Null: 1.';
comment on column job_queue.queues.retry_delay is
  'For jobs that were enqueued without. Null: 15 seconds.';
comment on column job_queue.queues.retry_delay_max is
  'For jobs that were enqueued without. Null: 1 hour.';
comment on column job_queue.queues.max_losses is
  'For jobs that were enqueued without. Null: 3.';
comment on column job_queue.queues.timeout is
  'For jobs that were enqueued without. Null: none.';
comment on column job_queue.queues.keep_succeeded is
  'How long a succeeded job is kept. Null: 7 days.';
comment on column job_queue.queues.keep_failed is
  'How long a failed job is kept. Null: 30 days.';
comment on column job_queue.queues.keep_cancelled is
  'How long a cancelled job is kept. Null: 7 days.';
comment on column job_queue.queues.queue_id is
  'The number in the name of its rate clock.';
