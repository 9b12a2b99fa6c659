drop function job_queue.next_tick(text, text, timestamptz);
