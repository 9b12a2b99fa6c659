drop function job_queue.fail_jobs(jsonb);
