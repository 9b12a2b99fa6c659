drop function job_queue.enqueue_jobs(jsonb, jsonb);
