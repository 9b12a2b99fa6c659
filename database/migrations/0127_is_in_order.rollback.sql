drop function job_queue.is_in_order(
  text, jsonb, integer, text, text, integer, timestamptz, integer, interval, interval, integer,
  interval, text, text, text, jsonb
);
