drop function job_queue.waiting_queues();
