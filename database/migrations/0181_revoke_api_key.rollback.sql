drop function job_queue.revoke_api_key(text);
