drop function job_queue.prune_step(integer);
