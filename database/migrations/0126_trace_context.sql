-- depends: 0125_grant_roles

-- Adds only, so that clients and workers of the version before run on.

set local lock_timeout = '5s';

alter table job_queue.jobs
  add column trace_context jsonb;

comment on column job_queue.jobs.trace_context is
  'The trace that the job belongs to, as whoever enqueued it has it: W3C Trace Context, such as '
  '{"traceparent": "00-...-01", "tracestate": "..."}. Null: none.';
