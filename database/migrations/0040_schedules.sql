-- depends: 0039_worker_sightings

-- Templates that enqueue a job at each tick of a cron expression. set_schedule, pause_schedule,
-- resume_schedule and delete_schedule write it, and fire_schedules moves next_at on.

create table job_queue.schedules (
  schedule text not null,
  cron text not null,
  time_zone text not null default 'UTC',
  job jsonb not null default '{}',
  missed_ticks text not null default 'coalesce',
  paused boolean not null default false,
  next_at timestamptz,
  last_at timestamptz,
  last_job_id uuid,
  last_error text,

  constraint schedules_pkey primary key (schedule),
  constraint schedules_have_a_name check (length(schedule) between 1 and 100),
  constraint schedules_miss_ticks_in_a_known_way check (missed_ticks in ('coalesce', 'catch up'))
);

comment on table job_queue.schedules is
  'What enqueues a job at each tick of a cron expression.';
comment on column job_queue.schedules.schedule is
  'Its name.';
comment on column job_queue.schedules.cron is
  'The five fields, or @daily and the like: see next_tick.';
comment on column job_queue.schedules.time_zone is
  'The zone in which cron is read, a name of pg_timezone_names.';
comment on column job_queue.schedules.job is
  'The job, as one element of the argument of enqueue_jobs.';
comment on column job_queue.schedules.missed_ticks is
  'If several ticks have passed unseen: coalesce enqueues one job for the last of them, catch up '
  'one for each.';
comment on column job_queue.schedules.paused is
  'Whether it enqueues nothing. Ticks that pass meanwhile are not made up for.';
comment on column job_queue.schedules.next_at is
  'The next tick. Null: to be found by the next run of fire_schedules.';
comment on column job_queue.schedules.last_at is
  'The last tick for which a job was enqueued.';
comment on column job_queue.schedules.last_job_id is
  'The job that was enqueued for last_at.';
comment on column job_queue.schedules.last_error is
  'Why the last tick failed. Null: it enqueued a job, or one with its unique key was unfinished.';
