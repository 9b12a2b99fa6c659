drop function job_queue.complete_job(uuid, bigint, jsonb);
