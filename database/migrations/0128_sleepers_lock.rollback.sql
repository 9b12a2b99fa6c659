drop function job_queue.sleepers_lock(text);
