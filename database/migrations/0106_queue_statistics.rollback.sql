drop view job_queue.queue_statistics;
