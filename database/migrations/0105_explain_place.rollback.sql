drop function job_queue.explain_place(uuid);
