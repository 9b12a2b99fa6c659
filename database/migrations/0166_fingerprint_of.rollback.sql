drop function job_queue.fingerprint_of(jsonb);
