drop function job_queue.last_tick(text, text, timestamptz, timestamptz);
