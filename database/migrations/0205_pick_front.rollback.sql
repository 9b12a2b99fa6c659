drop function job_queue.pick_front(text, text[], integer, boolean);
