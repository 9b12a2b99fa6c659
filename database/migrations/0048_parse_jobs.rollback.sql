drop function job_queue.parse_jobs(jsonb);
