drop function job_queue.sweep_marks();
