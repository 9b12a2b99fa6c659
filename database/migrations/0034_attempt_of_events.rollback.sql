set local lock_timeout = '5s';

alter table job_queue.job_events
  drop column attempt;

comment on table job_queue.job_events is
  'One line for each change of a job''s status. Only ever added to.';
comment on column job_queue.job_events.claim_id is
  'The claim under which it was done. Null for enqueue, cancel and retry.';
comment on column job_queue.job_events.detail is
  'claim and reclaim: {"worker": text}. fail: {"error": text}.';
