drop function job_queue.retry_wait(integer, interval, interval);
