drop function job_queue.start_listening(text[]);
