drop function job_queue.pause_schedule(text, boolean);
