drop function job_queue.release_jobs(jsonb);
