drop schema job_queue;
