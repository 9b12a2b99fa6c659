drop function job_queue.raise_lost_claim(uuid, bigint);
