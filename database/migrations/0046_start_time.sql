-- depends: 0045_clocks

-- Changes nothing: when a new job may run.

create function job_queue.start_time(
  p_run_at timestamptz,
  p_delay interval
)
returns timestamptz
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_run_at is not null and p_delay is not null then
    perform job_queue.raise_invalid_argument(
      'run_at and delay', p_run_at || ' and ' || p_delay, 'Pass one of the two.');
  end if;
  perform job_queue.check_delay('delay', p_delay);
  return coalesce(p_run_at, clock_timestamp() + coalesce(p_delay, '0'));
end
$$;

comment on function job_queue.start_time(timestamptz, interval) is
  'p_run_at, or p_delay from now, or now. Private to this schema. Errors: JQ001 if both are given, '
  'or for a delay out of range.';

revoke execute on function job_queue.start_time(timestamptz, interval) from public;
