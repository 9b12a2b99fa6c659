drop function job_queue.put_jobs_back(text, text, integer);
