-- depends: 0094_last_tick

-- Changes nothing: says that there is no such schedule.

create function job_queue.raise_no_schedule(
  p_schedule text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'JQ002',
    message = format('schedule %s does not exist', coalesce(p_schedule, 'null')),
    hint = 'The table schedules has those that do.';
end
$$;

comment on function job_queue.raise_no_schedule(text) is
  'Raises JQ002. Private to this schema.';

revoke execute on function job_queue.raise_no_schedule(text) from public;
