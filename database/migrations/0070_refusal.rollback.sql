drop function job_queue.refusal(uuid);
