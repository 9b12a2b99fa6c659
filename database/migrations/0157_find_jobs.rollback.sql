drop function job_queue.find_jobs(
  integer, uuid, text[], text[], text[], timestamptz, timestamptz, timestamptz, timestamptz, text,
  text
);
