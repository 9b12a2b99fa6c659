drop function job_queue.spend_tokens(integer, integer, interval, integer);
