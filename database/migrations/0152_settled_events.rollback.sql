drop function job_queue.settled_events(bigint, integer, bigint, bigint);
