drop table job_queue.marks;
