drop function job_queue.check_key_jobs(text[], uuid[], bigint[]);
