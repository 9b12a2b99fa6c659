drop function job_queue.check_api_key(text, bytea);
