drop function job_queue.cancel_blocked_jobs(uuid[]);
