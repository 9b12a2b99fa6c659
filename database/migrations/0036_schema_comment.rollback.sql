comment on schema job_queue is
  'A job queue that is just Postgres. Its functions are its interface: enqueue_job, '
  'claim_next_job, heartbeat, complete_job, fail_job, snooze_job, release_job, cancel_job, '
  'retry_job, get_job, list_jobs, job_history. Tables may be read, never written by hand.';
