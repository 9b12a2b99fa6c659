-- depends: 0004_claims

-- When claim_next_job next looks for expired claims: microseconds since 1970.
--
-- A sequence and not a row, because a sequence is written in place: whatever the rate, no dead
-- rows, no lock to wait for, and no rollback. It is a hint; two workers that both find it due do no
-- harm.

create sequence job_queue.reclaim_due minvalue 0 start 0;

comment on sequence job_queue.reclaim_due is
  'When claim_next_job next looks for expired claims: microseconds since 1970.';
