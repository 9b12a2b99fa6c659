drop function job_queue.complete_and_claim(jsonb, integer, text, text[], text[], interval);
