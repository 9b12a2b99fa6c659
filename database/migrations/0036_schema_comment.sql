-- depends: 0035_wait_and_depend

comment on schema job_queue is
  'A job queue that is just Postgres. Its functions are its interface, save those whose comment '
  'calls them private: enqueue_job, claim_next_job, heartbeat, complete_job, fail_job, cancel_job '
  'and so on. Tables may be read, never written by hand.';
