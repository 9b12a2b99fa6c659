drop function job_queue.oldest_snapshot();
