drop function job_queue.set_queue(text, jsonb);
