-- depends: 0109_check_health

-- For people: what would hurt next.

create view job_queue.health as
  select checked.aspect, checked.severity, checked.detail
    from job_queue.check_health() as checked;

comment on view job_queue.health is
  'For people: what would hurt next.';
comment on column job_queue.health.aspect is
  'What was looked at.';
comment on column job_queue.health.severity is
  'ok, warning or critical.';
comment on column job_queue.health.detail is
  'What there is to know.';
