drop function job_queue.free_slots(text, text, integer, integer, integer[]);
