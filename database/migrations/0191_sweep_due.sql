-- depends: 0190_explain_job

create sequence job_queue.sweep_due minvalue 0 start 0;

comment on sequence job_queue.sweep_due is
  'When sweep_marks is next to do anything: microseconds since 1970.';
