drop function job_queue.get_job(uuid);
