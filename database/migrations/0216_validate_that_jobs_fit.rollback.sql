set local lock_timeout = '5s';

alter table job_queue.jobs
  drop constraint jobs_fit_their_status,
  add constraint jobs_fit_their_status
    check (job_queue.is_consistent(
      status, claimable, waits_for_key, failed_at is not null, result is not null)) not valid;
