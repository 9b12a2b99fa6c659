drop function job_queue.next_cron_day(integer[], integer[], integer[], boolean, date, date);
