drop function job_queue.list_dead_jobs(integer, uuid, text, text);
