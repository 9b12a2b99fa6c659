-- depends: 0193_start_mark

-- Whoever writes jobs waits while it is made: some seconds for ten million.

set local lock_timeout = '5s';

create index jobs_lanes_idx on job_queue.jobs (queue, job_type, priority, run_at, seq)
  where claimable;

comment on index job_queue.jobs_lanes_idx is
  'The waiting jobs, lane by lane, in the order in which claim_next_job takes them. Holds no '
  'finished job.';
