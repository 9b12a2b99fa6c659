drop function job_queue.job_history(uuid);
