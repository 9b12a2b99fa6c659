drop function job_queue.move_marks(text, text[], job_queue.pick[]);
