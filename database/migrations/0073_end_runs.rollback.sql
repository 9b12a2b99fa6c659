drop function job_queue.end_runs(text, job_queue.run[]);
