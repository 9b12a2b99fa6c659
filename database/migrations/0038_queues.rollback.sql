drop table job_queue.queues;
