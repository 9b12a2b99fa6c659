drop function job_queue.first_of_lane(text, text, integer, timestamptz, integer, boolean);
