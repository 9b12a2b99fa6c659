drop table job_queue.job_dependencies;
