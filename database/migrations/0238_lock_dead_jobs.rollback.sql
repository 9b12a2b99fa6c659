drop function job_queue.lock_dead_jobs(
  text, text, text, timestamptz, timestamptz, integer, text[]
);
