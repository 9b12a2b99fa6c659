-- depends: 0214_is_consistent

set local lock_timeout = '5s';

alter table job_queue.jobs
  add constraint jobs_fit_their_status
    check (job_queue.is_consistent(
      status, claimable, waits_for_key, failed_at is not null, result is not null)) not valid,
  drop constraint jobs_status_is_known,
  drop constraint jobs_are_claimable_while_queued,
  drop constraint jobs_have_failed_at_while_failed,
  drop constraint jobs_have_a_result_only_when_ended;
