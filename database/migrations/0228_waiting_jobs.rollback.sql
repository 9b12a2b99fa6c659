drop function job_queue.waiting_jobs(integer);
