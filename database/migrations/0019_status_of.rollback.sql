drop function job_queue.status_of(uuid);
