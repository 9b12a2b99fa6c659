drop function job_queue.run_maintenance();
