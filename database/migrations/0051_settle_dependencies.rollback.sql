drop function job_queue.settle_dependencies(uuid[], integer);
