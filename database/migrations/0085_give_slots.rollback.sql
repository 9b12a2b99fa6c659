drop function job_queue.give_slots(text);
