drop function job_queue.settle_overdue_dependencies(integer);
