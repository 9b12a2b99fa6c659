drop sequence job_queue.sweep_due;
