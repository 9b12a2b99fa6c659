drop sequence job_queue.maintained_at;
drop sequence job_queue.dependency_cursor;
drop sequence job_queue.prune_cursor;
drop sequence job_queue.put_back_cursor;
comment on sequence job_queue.reclaim_due is
  'When claim_next_job next looks for expired claims: microseconds since 1970.';
