drop function job_queue.set_mark(integer, timestamptz, bigint);
