drop function job_queue.add_jobs(job_queue.new_job[], uuid[], boolean[], jsonb);
