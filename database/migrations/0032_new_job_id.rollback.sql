drop function job_queue.new_job_id();
