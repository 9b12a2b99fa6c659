drop function job_queue.check_key_queues(text[], text, text[], uuid[], bigint[]);
