drop function job_queue.set_schedule(text, text, jsonb, text, text);
