-- depends: 0091_next_cron_day

-- Changes nothing: finds the next time that matches a cron expression, on a clock that is never
-- put forward or back.

create function job_queue.next_cron_time(
  p_minutes integer[],
  p_hours integer[],
  p_days integer[],
  p_months integer[],
  p_weekdays integer[],
  p_needs_both boolean,
  p_from timestamp,
  p_until date
)
returns timestamp
language plpgsql
immutable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date := p_from::date;
  v_hour integer := extract(hour from p_from)::integer;
  v_minute integer := extract(minute from p_from)::integer;
  v_day date;
begin
  v_day := job_queue.next_cron_day(
    p_days, p_months, p_weekdays, p_needs_both, v_today, p_until);
  if v_day = v_today
    and v_hour = any (p_hours)
    and v_minute <= p_minutes[cardinality(p_minutes)] then
    return v_day + make_time(
      v_hour, (select min(minute) from unnest(p_minutes) as minute where minute >= v_minute), 0);
  end if;

  if v_day = v_today and v_hour < p_hours[cardinality(p_hours)] then
    return v_day + make_time(
      (select min(hour) from unnest(p_hours) as hour where hour > v_hour), p_minutes[1], 0);
  end if;

  if v_day = v_today then
    v_day := job_queue.next_cron_day(
      p_days, p_months, p_weekdays, p_needs_both, v_today + 1, p_until);
  end if;
  return v_day + make_time(p_hours[1], p_minutes[1], 0);
end
$$;

comment on function job_queue.next_cron_time(
  integer[], integer[], integer[], integer[], integer[], boolean, timestamp, date
) is
  'Returns the first time from the minute of p_from on that matches, or null if there is none '
  'until p_until. Private to this schema.';

revoke execute on function job_queue.next_cron_time(
  integer[], integer[], integer[], integer[], integer[], boolean, timestamp, date
) from public;
