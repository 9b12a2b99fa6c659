set local lock_timeout = '5s';

create or replace trigger jobs_change_status_as_job_transitions_says
  before update of status on job_queue.jobs
  for each row
  when (
    old.status <> new.status
    and old.status || ' -> ' || new.status <> all (
      '{queued -> running, running -> succeeded, running -> failed, running -> queued,
        running -> cancelled, queued -> cancelled, failed -> queued, cancelled -> queued,
        blocked -> queued, blocked -> cancelled}'::text[]
    )
  )
  execute function job_queue.refuse_transition();
