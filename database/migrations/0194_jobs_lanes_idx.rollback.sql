set local lock_timeout = '5s';

drop index job_queue.jobs_lanes_idx;
