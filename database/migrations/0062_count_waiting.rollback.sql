drop function job_queue.count_waiting(text, text[], integer);
