drop function job_queue.create_api_key(text, text[], text[], interval, integer, interval);
