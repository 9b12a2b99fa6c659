drop view job_queue.workers;
