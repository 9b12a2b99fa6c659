drop function job_queue.see_worker(text, text[], text[]);
