drop function job_queue.reclaim_if_due();
