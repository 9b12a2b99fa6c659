drop table job_queue.api_keys;
