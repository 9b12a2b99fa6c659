-- depends: 0123_drop_what_is_not_called

-- Looks at every job, but lets others change them meanwhile.

alter table job_queue.jobs validate constraint jobs_status_is_known;
alter table job_queue.jobs validate constraint jobs_are_claimable_while_queued;
alter table job_queue.jobs validate constraint jobs_have_failed_at_while_failed;
