drop function job_queue.ready_queues(text[]);
