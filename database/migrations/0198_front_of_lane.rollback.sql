drop function job_queue.front_of_lane(text, text, integer, boolean, bigint, timestamptz, bigint);
