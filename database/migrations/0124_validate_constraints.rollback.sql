-- The constraints stay as they were, but not valid.

set local lock_timeout = '5s';

alter table job_queue.jobs
  drop constraint jobs_status_is_known,
  add constraint jobs_status_is_known
    check (status in ('blocked', 'queued', 'running', 'succeeded', 'failed', 'cancelled'))
    not valid,
  drop constraint jobs_are_claimable_while_queued,
  add constraint jobs_are_claimable_while_queued
    check (claimable = (status = 'queued' and not waits_for_key)
           and (status = 'queued' or not waits_for_key))
    not valid,
  drop constraint jobs_have_failed_at_while_failed,
  add constraint jobs_have_failed_at_while_failed
    check ((failed_at is not null) = (status = 'failed'))
    not valid;
