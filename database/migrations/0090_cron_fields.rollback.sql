drop function job_queue.cron_fields(text);
