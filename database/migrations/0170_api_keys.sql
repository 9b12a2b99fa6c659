-- depends: 0166_fingerprint_of

-- Who may use the REST API, and for what. create_api_key and revoke_api_key write it; authorize
-- reads it with each request, and notes now and then that it did.
--
-- The key itself is nowhere in the database, only its hash. One hash, and no slow one: the secret
-- is as random as the hash is long, so that there is nothing to guess from a list of likely ones.
--
-- What changes with each request, the clock of the rate limit, is kept in a sequence beside each
-- row that has one (key_clock), which is written in place and locks nobody out: see spend_request.

create table job_queue.api_keys (
  key_id text not null,
  name text not null,
  secret_hash bytea not null,
  scopes text[] not null,
  queues text[],
  rate_limit integer,
  rate_period interval not null default '1 minute',
  rate_step bigint generated always as (
    (extract(epoch from rate_period) * 1000000)::bigint / rate_limit) stored,
  created_at timestamptz not null default clock_timestamp(),
  created_by text not null default session_user,
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,

  constraint api_keys_pkey primary key (key_id),
  constraint api_keys_have_an_id check (key_id ~ '^[0-9a-f]{12}$'),
  constraint api_keys_have_a_name check (length(name) between 1 and 100),
  constraint api_keys_have_a_hash check (length(secret_hash) = 32),
  constraint api_keys_have_known_scopes
    check (cardinality(scopes) > 0 and scopes <@ '{client,worker,operator}'),
  constraint api_keys_have_some_queues check (cardinality(queues) > 0),
  constraint api_keys_allow_some_requests check (rate_limit between 1 and 1000000),
  constraint api_keys_have_a_period
    check (rate_period between interval '1 millisecond' and interval '1 year'),
  constraint api_keys_allow_one_request_a_microsecond check (rate_step >= 1)
) with (fillfactor = 70);

comment on table job_queue.api_keys is
  'Who may use the REST API, and for what. Revoked and expired keys stay, to be looked up.';
comment on column job_queue.api_keys.key_id is
  'The part of the key that is no secret: jq_<key_id>_<secret>.';
comment on column job_queue.api_keys.name is
  'Whose it is, for people.';
comment on column job_queue.api_keys.secret_hash is
  'The SHA-256 of the whole key.';
comment on column job_queue.api_keys.scopes is
  'What it is good for: client, worker and operator stand for the functions that the group roles '
  'job_queue_client, job_queue_worker and job_queue_operator may execute.';
comment on column job_queue.api_keys.queues is
  'The only queues that it may touch or see. Null: all, and what concerns no queue.';
comment on column job_queue.api_keys.rate_limit is
  'How many requests it may make within rate_period, evenly refilled, and at once after a rest. '
  'Null: any number.';
comment on column job_queue.api_keys.rate_period is
  'The period of rate_limit.';
comment on column job_queue.api_keys.rate_step is
  'How far a request moves its clock, in microseconds. Null: there is no limit.';
comment on column job_queue.api_keys.created_at is
  'When it was made.';
comment on column job_queue.api_keys.created_by is
  'The role that had logged in when it was made.';
comment on column job_queue.api_keys.expires_at is
  'From when on it is not valid. Null: it does not expire.';
comment on column job_queue.api_keys.revoked_at is
  'Since when it is not valid any more. Null: it was not revoked.';
comment on column job_queue.api_keys.last_used_at is
  'When it was last used, give or take a minute. Null: never.';
