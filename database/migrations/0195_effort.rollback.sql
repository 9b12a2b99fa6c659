drop function job_queue.effort();
