drop function job_queue.check_health();
