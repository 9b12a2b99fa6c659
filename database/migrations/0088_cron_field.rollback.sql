drop function job_queue.cron_field(text, text, integer, integer, text[]);
