drop view job_queue.health;
