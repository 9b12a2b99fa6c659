drop function job_queue.heartbeat(bigint[], interval);
