drop table job_queue.job_events;
