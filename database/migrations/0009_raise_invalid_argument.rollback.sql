drop function job_queue.raise_invalid_argument(text, text, text);
