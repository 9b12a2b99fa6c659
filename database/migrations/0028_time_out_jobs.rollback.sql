drop function job_queue.time_out_jobs(integer);
