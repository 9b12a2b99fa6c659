drop function job_queue.check_scope(text[], text);
