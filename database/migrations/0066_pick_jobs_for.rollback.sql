drop function job_queue.pick_jobs_for(integer, text, text[], text[], interval);
