drop function job_queue.cron_instant(timestamp, text, boolean, timestamptz);
