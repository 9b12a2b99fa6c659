drop function job_queue.enqueue_job(text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval, integer, interval, text);
