drop sequence job_queue.prune_due;
