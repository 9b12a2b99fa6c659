drop function job_queue.check_job(text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval, integer, interval, text);
