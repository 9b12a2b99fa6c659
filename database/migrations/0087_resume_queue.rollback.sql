drop function job_queue.resume_queue(text);
