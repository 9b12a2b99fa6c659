drop function job_queue.start_time(timestamptz, interval);
