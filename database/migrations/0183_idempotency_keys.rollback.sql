drop table job_queue.idempotency_keys;
