drop function job_queue.ended_jobs(uuid[]);
