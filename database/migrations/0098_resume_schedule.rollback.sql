drop function job_queue.resume_schedule(text);
