drop function job_queue.pause_queue(text);
