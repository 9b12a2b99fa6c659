drop function job_queue.cancel_job(uuid);
