drop function job_queue.list_events(bigint, integer, bigint, uuid, text[]);
