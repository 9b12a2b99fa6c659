drop function job_queue.parse_runs(jsonb, text[]);
