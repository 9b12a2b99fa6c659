drop function job_queue.fire_schedules(integer);
