drop function job_queue.refuse_job(job_queue.new_job);
