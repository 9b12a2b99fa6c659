drop function job_queue.list_api_keys(text);
