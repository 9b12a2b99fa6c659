drop function job_queue.retry_job(uuid);
