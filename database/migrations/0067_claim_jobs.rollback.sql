drop function job_queue.claim_jobs(integer, text, text[], text[], interval);
