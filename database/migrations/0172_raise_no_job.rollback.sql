drop function job_queue.raise_no_job(uuid);
