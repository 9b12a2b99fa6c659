drop sequence job_queue.reclaim_due;
