drop function job_queue.may_become(text, text);
