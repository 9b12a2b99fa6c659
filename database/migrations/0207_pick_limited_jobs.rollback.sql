drop function job_queue.pick_limited_jobs(text, text[], integer);
