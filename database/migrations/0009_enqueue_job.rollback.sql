drop function job_queue.enqueue_job(integer, text, integer);
