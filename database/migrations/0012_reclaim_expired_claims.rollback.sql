drop function job_queue.reclaim_expired_claims(integer);
