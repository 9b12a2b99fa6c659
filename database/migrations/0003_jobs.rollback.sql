drop table job_queue.jobs;
