drop function job_queue.lock_unended_jobs(
  text, text, text, text, timestamptz, timestamptz, integer, text[]
);
