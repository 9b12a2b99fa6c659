drop function job_queue.is_consistent(text, boolean, boolean, boolean, boolean);
