set local lock_timeout = '5s';

alter table job_queue.jobs
  drop column trace_context;
