-- depends: 0088_cron_field

-- Changes nothing: says when a cron expression is next due.
--
-- Where the zone's clock is put forward or back, Debian's cron is followed, as the Python package
-- cronsim follows it. A job with fixed times, whose minute and hour both begin with something else
-- than `*`, runs when the clock first shows its time, or, if its time is skipped, when the clock
-- has been put forward: once either way. Any other job goes by real time: it runs whenever the
-- clock shows a time that matches, so again in an hour that is repeated, and not for one that is
-- skipped.
--
-- So the search begins with what the clock shows after p_after, and goes from one time that
-- matches to the next. Only if the clock is about to be put back, and the job goes by real time,
-- does it begin earlier and compare: what comes first on the clock may then come last.

create function job_queue.next_tick(
  p_cron text,
  p_time_zone text default 'UTC',
  p_after timestamptz default clock_timestamp()
)
returns timestamptz
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cron record;
  v_shown timestamp;
  v_local timestamp;
  v_tick timestamptz;
begin
  select minutes, hours, days, months, weekdays, needs_both, is_fixed
    into v_cron
    from job_queue.cron_fields(p_cron);
  if p_time_zone is null then
    perform job_queue.raise_invalid_argument(
      'time_zone', null, 'Pass a name such as Europe/Paris.');
  end if;
  if (p_after between '0001-01-02 00:00:00+00' and '9999-01-01 00:00:00+00') is not true then
    perform job_queue.raise_invalid_argument(
      'after', p_after::text, 'Pass a time between the years 1 and 9999.');
  end if;

  v_shown := p_after at time zone p_time_zone;
  v_local := v_shown;
  if not v_cron.is_fixed then
    v_local := v_local - greatest((v_shown at time zone p_time_zone) - p_after, '0');
  end if;

  loop
    v_local := job_queue.next_cron_time(
      v_cron.minutes, v_cron.hours, v_cron.days, v_cron.months, v_cron.weekdays, v_cron.needs_both,
      v_local + interval '1 minute', (v_shown + interval '50 years')::date);
    exit when v_local is null;
    v_tick := least(
      v_tick, job_queue.cron_instant(v_local, p_time_zone, v_cron.is_fixed, p_after));
    exit when v_local > v_shown and v_tick is not null;
  end loop;

  if v_tick is null then
    perform job_queue.raise_invalid_argument(
      'cron', p_cron, 'Pass an expression that matches within fifty years.');
  end if;
  return v_tick;
end
$$;

comment on function job_queue.next_tick(text, text, timestamptz) is
  'Returns the first instant after p_after at which p_cron is due in p_time_zone. p_cron: minute, '
  'hour, day of month, month and day of week, each *, or a list of numbers and ranges with steps '
  'if need be; JAN to DEC, SUN to SAT, 7 for Sunday; or @yearly, @annually, @monthly, @weekly, '
  '@daily, @midnight, @hourly. If neither day begins with *, one that matches is enough, else '
  'both must. Daylight saving time is treated as in Debian''s cron: jobs with fixed times, whose '
  'minute and hour do not begin with *, run right after the gap that skips their time, and once '
  'in an hour that is repeated; others by real time. Errors: JQ001 for an expression that cannot '
  'be read or does not match within fifty years.';

revoke execute on function job_queue.next_tick(text, text, timestamptz) from public;
