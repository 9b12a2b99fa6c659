drop function job_queue.next_cron_time(integer[], integer[], integer[], integer[], integer[], boolean, timestamp, date);
