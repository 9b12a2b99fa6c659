drop function job_queue.release_job(uuid, bigint);
