drop function job_queue.recover_if_due();
