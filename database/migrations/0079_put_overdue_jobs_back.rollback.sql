drop function job_queue.put_overdue_jobs_back(integer, integer);
