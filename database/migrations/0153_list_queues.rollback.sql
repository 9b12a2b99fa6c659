drop function job_queue.list_queues(text, text[]);
