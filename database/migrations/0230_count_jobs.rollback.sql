drop function job_queue.count_jobs();
