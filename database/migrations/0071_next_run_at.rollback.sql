drop function job_queue.next_run_at(text, timestamptz, interval, integer, interval, interval);
