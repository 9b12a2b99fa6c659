drop function job_queue.enqueue_once(text, text, jsonb);
