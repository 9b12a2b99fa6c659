drop table job_queue.worker_sightings;
