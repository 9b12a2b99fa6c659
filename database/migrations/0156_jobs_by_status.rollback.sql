drop function job_queue.jobs_by_status(text[], text[], integer);
