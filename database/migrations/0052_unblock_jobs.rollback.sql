drop function job_queue.unblock_jobs(uuid[]);
