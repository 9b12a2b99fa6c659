drop function job_queue.wake_workers(text[]);
