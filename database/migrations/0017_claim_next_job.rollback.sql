drop function job_queue.claim_next_job(text, text[], text[], interval);
