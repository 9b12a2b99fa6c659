drop function job_queue.prune_jobs(integer);
