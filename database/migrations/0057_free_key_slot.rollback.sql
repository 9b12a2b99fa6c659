drop function job_queue.free_key_slot(text, text, integer, job_queue.pick[]);
