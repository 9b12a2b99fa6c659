drop function job_queue.list_schedules(text);
