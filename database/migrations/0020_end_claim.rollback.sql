drop function job_queue.end_claim(uuid, bigint);
