drop function job_queue.prune_idempotency_keys(integer);
