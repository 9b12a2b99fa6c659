drop function job_queue.sampled_jobs(integer);
