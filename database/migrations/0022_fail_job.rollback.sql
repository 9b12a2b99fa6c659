drop function job_queue.fail_job(uuid, bigint, text, boolean, interval);
