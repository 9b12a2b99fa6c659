-- depends: 0036_schema_comment

-- What the blocked jobs wait for: a row for each parent that has not ended, gone once it has.
--
-- No foreign keys, for the reason given in 040_claims.sql.

create table job_queue.job_dependencies (
  dependency_id bigint not null generated always as identity,
  job_id uuid not null,
  parent_id uuid not null,
  on_parent_failure text not null,

  constraint job_dependencies_pkey primary key (dependency_id),
  constraint job_dependencies_are_distinct unique (job_id, parent_id),
  constraint job_dependencies_know_what_to_do check (on_parent_failure in ('cancel', 'release'))
);

create index job_dependencies_parent_idx on job_queue.job_dependencies (parent_id);

comment on table job_queue.job_dependencies is
  'Which jobs a blocked job waits for: a row for each that has not ended.';
comment on column job_queue.job_dependencies.dependency_id is
  'The order in which recovery looks at them.';
comment on column job_queue.job_dependencies.job_id is
  'The job that waits.';
comment on column job_queue.job_dependencies.parent_id is
  'The job that it waits for.';
comment on column job_queue.job_dependencies.on_parent_failure is
  'What becomes of the waiting job if the parent fails or is cancelled: cancel, or release as if '
  'it had succeeded.';
comment on index job_queue.job_dependencies_parent_idx is
  'The jobs that wait for one.';
