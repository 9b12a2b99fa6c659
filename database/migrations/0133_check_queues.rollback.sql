drop function job_queue.check_queues(text[]);
