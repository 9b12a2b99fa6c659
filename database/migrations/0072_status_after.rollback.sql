drop function job_queue.status_after(text, boolean, boolean, integer, integer, integer, integer);
