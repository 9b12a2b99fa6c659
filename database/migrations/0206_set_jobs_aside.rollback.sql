drop function job_queue.set_jobs_aside(text, uuid[], uuid[]);
