drop table job_queue.claims;
