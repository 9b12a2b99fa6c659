drop table job_queue.schedules;
