drop function job_queue.stop_listening(text[]);
