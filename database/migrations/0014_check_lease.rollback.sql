drop function job_queue.check_lease(interval);
