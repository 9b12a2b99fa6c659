drop function job_queue.waiting_types(text);
