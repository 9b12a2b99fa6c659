-- depends: 0222_end_runs

create sequence job_queue.prune_due minvalue 0 start 0;

comment on sequence job_queue.prune_due is
  'When prune_jobs begins anew with the oldest job: microseconds since 1970.';
