-- depends: 0242_find_jobs

comment on function job_queue.list_jobs(
  integer, uuid, text[], text[], text[], timestamptz, timestamptz, timestamptz, timestamptz, text,
  text
) is
  'Jobs, newest first: at most p_limit of them (null: all), and only those that come after the job '
  'p_after in this order. Passing the last id of one page as p_after gives the next. All that is '
  'given must match: one of the statuses, of the queues, of the types, the times (after: or at; '
  'before: not at), the unique key, a part of the error of a job that failed. A page of blocked, '
  'queued, running or failed jobs, or of a unique key, is found among these, and a time of '
  'creation leaves out what is older; whatever else is rare is looked for among all jobs. Errors: '
  'JQ001 for a status that there is not.';
