drop function job_queue.authorize(text, bytea, text, text[], uuid[], bigint[], integer);
