drop function job_queue.add_dependencies(uuid, uuid[], text);
