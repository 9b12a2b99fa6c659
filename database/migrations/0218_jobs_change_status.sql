-- depends: 0217_may_become

set local lock_timeout = '5s';

create or replace trigger jobs_change_status_as_job_transitions_says
  before update of status on job_queue.jobs
  for each row
  when (not job_queue.may_become(old.status, new.status))
  execute function job_queue.refuse_transition();
