drop function job_queue.explain_job(uuid);
