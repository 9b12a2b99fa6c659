drop function job_queue.cancel_jobs(
  text, text, text, text, timestamptz, timestamptz, integer, boolean, text[]
);
