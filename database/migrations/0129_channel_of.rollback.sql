drop function job_queue.channel_of(text);
