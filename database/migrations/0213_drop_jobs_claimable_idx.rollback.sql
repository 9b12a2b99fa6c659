set local lock_timeout = '5s';

create index jobs_claimable_idx on job_queue.jobs (queue, priority, run_at, seq) where claimable;

comment on index job_queue.jobs_claimable_idx is
  'The waiting jobs in the order in which claim_next_job takes them. Holds no finished job.';
