drop function job_queue.spend_request(text, integer, interval, bigint, integer);
