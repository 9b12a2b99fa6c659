drop function job_queue.explain_waiting(uuid);
