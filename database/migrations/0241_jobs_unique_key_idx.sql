-- depends: 0240_pick_limited_jobs

-- Whoever writes jobs waits while it is made: some seconds for ten million with keys.

set local lock_timeout = '5s';

create index jobs_unique_key_idx on job_queue.jobs (unique_key, id) where unique_key is not null;

comment on index job_queue.jobs_unique_key_idx is
  'What has become of the jobs with a unique key.';
