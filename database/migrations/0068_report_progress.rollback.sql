drop function job_queue.report_progress(uuid, bigint, jsonb);
