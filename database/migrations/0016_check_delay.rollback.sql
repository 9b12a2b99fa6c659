drop function job_queue.check_delay(text, interval);
