-- What the functions pass to one another: jobs to be enqueued, jobs to be claimed, runs that end.

create type job_queue.new_job as (
  job_type text,
  payload jsonb,
  sleep_seconds integer,
  message text,
  queue text,
  priority integer,
  run_at timestamptz,
  delay interval,
  max_attempts integer,
  retry_delay interval,
  retry_delay_max interval,
  max_losses integer,
  timeout interval,
  unique_key text,
  concurrency_key text,
  depends_on uuid[],
  on_parent_failure text,
  trace_context jsonb
);

comment on type job_queue.new_job is
  'One element of the argument of enqueue_jobs: the parameters of enqueue_job without their p_.';

create type job_queue.pick as (
  job_id uuid,
  attempt integer,
  timeout interval,
  queue text,
  concurrency_key text,
  queue_slot integer,
  key_slot integer
);

comment on type job_queue.pick is
  'A job that is about to be claimed. queue and concurrency_key are null where its claim needs no '
  'slot of theirs.';

create type job_queue.run as (
  job_id uuid,
  claim_id bigint,
  result jsonb,
  error text,
  retryable boolean,
  delay interval
);

comment on type job_queue.run is
  'A run that ends: which, and with what.';
