drop function job_queue.complete_jobs(jsonb);
