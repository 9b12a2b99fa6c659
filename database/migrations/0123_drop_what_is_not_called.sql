-- depends: 0122_job_history

-- What nothing calls any more, and what could not hold while the version before was at work.

set local lock_timeout = '5s';

drop function job_queue.check_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text
);
drop function job_queue.end_claim(uuid, bigint);
drop function job_queue.hand_back(uuid, bigint, text, interval);
drop function job_queue.lock_next_job(text[], text[]);
drop function job_queue.reclaim_if_due();

update job_queue.jobs
   set failed_at = updated_at
 where status = 'failed'
   and failed_at is null;

alter table job_queue.jobs
  add constraint jobs_have_failed_at_while_failed
    check ((failed_at is not null) = (status = 'failed'))
    not valid;
