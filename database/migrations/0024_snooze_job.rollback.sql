drop function job_queue.snooze_job(uuid, bigint, interval);
