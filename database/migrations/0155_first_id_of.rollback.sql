drop function job_queue.first_id_of(timestamptz);
