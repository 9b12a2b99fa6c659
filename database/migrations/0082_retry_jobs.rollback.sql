drop function job_queue.retry_jobs(text, text, text, timestamptz, timestamptz, integer, boolean);
