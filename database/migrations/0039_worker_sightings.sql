-- depends: 0038_queues

-- Who has asked for work lately, and for which: what a worker that holds no claim would otherwise
-- leave no trace of. claim_jobs writes it when it finds nothing, and now and then otherwise.

create table job_queue.worker_sightings (
  worker text not null,
  queues text[],
  job_types text[],
  seen_at timestamptz not null,

  constraint worker_sightings_pkey primary key (worker)
) with (fillfactor = 50);

comment on table job_queue.worker_sightings is
  'Who has asked for work within the last day, and for which.';
comment on column job_queue.worker_sightings.worker is
  'As claim_next_job was told.';
comment on column job_queue.worker_sightings.queues is
  'The queues that it asked for. Null: all.';
comment on column job_queue.worker_sightings.job_types is
  'The types that it asked for. Null: all.';
comment on column job_queue.worker_sightings.seen_at is
  'When it last asked, give or take five seconds.';
