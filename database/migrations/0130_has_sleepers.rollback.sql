drop function job_queue.has_sleepers(text);
