set local lock_timeout = '5s';

drop index job_queue.jobs_unique_key_idx;
