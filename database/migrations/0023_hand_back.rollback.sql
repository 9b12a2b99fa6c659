drop function job_queue.hand_back(uuid, bigint, text, interval);
