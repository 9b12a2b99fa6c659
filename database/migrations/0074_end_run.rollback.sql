drop function job_queue.end_run(text, uuid, bigint, text, boolean, interval);
