drop function job_queue.pick_jobs(integer, text[], text[]);
