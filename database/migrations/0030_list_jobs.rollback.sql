drop function job_queue.list_jobs(integer, uuid);
