drop function job_queue.tokens_used_until(integer, interval, timestamptz);
