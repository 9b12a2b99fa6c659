drop function job_queue.lock_next_job(text[], text[]);
