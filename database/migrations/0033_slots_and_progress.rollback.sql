set local lock_timeout = '5s';

alter table job_queue.claims
  drop column queue,
  drop column concurrency_key,
  drop column queue_slot,
  drop column key_slot,
  drop column progress;
