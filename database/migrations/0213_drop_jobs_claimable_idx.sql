-- depends: 0212_drop_what_pick_front_replaces

set local lock_timeout = '5s';

drop index job_queue.jobs_claimable_idx;
