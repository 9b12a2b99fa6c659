-- depends: 0032_new_job_id

-- Adds only, so that workers of the version before run on. One table a migration: a transaction
-- that locked two of them could deadlock with theirs.

set local lock_timeout = '5s';

alter table job_queue.claims
  add column queue text,
  add column concurrency_key text,
  add column queue_slot integer,
  add column key_slot integer,
  add column progress jsonb;

create unique index claims_take_each_queue_slot_once on job_queue.claims (queue, queue_slot)
  where queue_slot is not null;

create unique index claims_take_each_key_slot_once
  on job_queue.claims (queue, concurrency_key, key_slot)
  where key_slot is not null;

comment on column job_queue.claims.queue is
  'The job''s queue, if that has a limit.';
comment on column job_queue.claims.concurrency_key is
  'The job''s concurrency key, if the claim has a slot of that key.';
comment on column job_queue.claims.queue_slot is
  'Which of the queue''s slots the claim has, from 1 on. Null: the queue had no limit.';
comment on column job_queue.claims.key_slot is
  'Which of the key''s slots in this queue the claim has, from 1 on. Null: there was no limit.';
comment on column job_queue.claims.progress is
  'What report_progress was last told.';
comment on index job_queue.claims_take_each_queue_slot_once is
  'What a limit rests on: no two claims have the same slot of a queue.';
comment on index job_queue.claims_take_each_key_slot_once is
  'What a limit rests on: no two claims have the same slot of a key.';
