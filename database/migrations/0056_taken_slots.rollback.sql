drop function job_queue.taken_slots(text, text);
