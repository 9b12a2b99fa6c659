set local lock_timeout = '5s';

alter table job_queue.jobs
  add constraint jobs_status_is_known
    check (status in ('blocked', 'queued', 'running', 'succeeded', 'failed', 'cancelled')),
  add constraint jobs_are_claimable_while_queued
    check (claimable = (status = 'queued' and not waits_for_key)
           and (status = 'queued' or not waits_for_key)),
  add constraint jobs_have_failed_at_while_failed
    check ((failed_at is not null) = (status = 'failed')),
  add constraint jobs_have_a_result_only_when_ended
    check (result is null or status in ('succeeded', 'failed')),
  drop constraint jobs_fit_their_status;
