-- depends: 0182_list_api_keys

-- What enqueue_once has answered, so that it can say the same again. run_maintenance deletes what
-- is older than a day.

create table job_queue.idempotency_keys (
  client text not null default '',
  idempotency_key text not null,
  fingerprint bytea not null,
  outcome jsonb,
  created_at timestamptz not null default clock_timestamp(),

  constraint idempotency_keys_pkey primary key (client, idempotency_key),
  constraint idempotency_keys_are_short check (length(idempotency_key) between 1 and 255)
);

create index idempotency_keys_expiring_idx on job_queue.idempotency_keys (created_at);

comment on table job_queue.idempotency_keys is
  'What enqueue_once has answered within the last 24 hours.';
comment on column job_queue.idempotency_keys.client is
  'Whose key it is: two clients may choose the same. Empty: nobody in particular.';
comment on column job_queue.idempotency_keys.idempotency_key is
  'What the client has called the request.';
comment on column job_queue.idempotency_keys.fingerprint is
  'The SHA-256 of the jobs that were asked for, by which another request is known.';
comment on column job_queue.idempotency_keys.outcome is
  'The answer, an array of objects. Null only within the transaction that is adding the jobs.';
comment on column job_queue.idempotency_keys.created_at is
  'When it was first used.';
comment on index job_queue.idempotency_keys_expiring_idx is
  'What run_maintenance deletes, oldest first.';
