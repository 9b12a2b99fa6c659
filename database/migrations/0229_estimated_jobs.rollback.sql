drop function job_queue.estimated_jobs();
