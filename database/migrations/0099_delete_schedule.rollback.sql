drop function job_queue.delete_schedule(text);
