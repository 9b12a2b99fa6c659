-- depends: 0089_next_tick

-- Changes nothing: reads a cron expression.

create function job_queue.cron_fields(
  p_cron text
)
returns table (
  minutes integer[],
  hours integer[],
  days integer[],
  months integer[],
  weekdays integer[],
  needs_both boolean,
  is_fixed boolean
)
language plpgsql
immutable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cron text := btrim(p_cron, E' \t\n\r\f\v');
  v_fields text[];
begin
  v_cron := case lower(v_cron collate "C")
    when '@yearly' then '0 0 1 1 *'
    when '@annually' then '0 0 1 1 *'
    when '@monthly' then '0 0 1 * *'
    when '@weekly' then '0 0 * * 0'
    when '@daily' then '0 0 * * *'
    when '@midnight' then '0 0 * * *'
    when '@hourly' then '0 * * * *'
    else v_cron
  end;
  v_fields := regexp_split_to_array(v_cron, '[ \t\n\r\f\v]+');
  if cardinality(v_fields) is distinct from 5 or length(p_cron) > 1000 then
    perform job_queue.raise_invalid_argument(
      'cron', left(p_cron, 100),
      'Pass minute, hour, day of month, month and day of week, such as 30 4 * * MON, or @daily.');
  end if;

  minutes := job_queue.cron_field(v_fields[1], 'minute', 0, 59, null);
  hours := job_queue.cron_field(v_fields[2], 'hour', 0, 23, null);
  days := job_queue.cron_field(v_fields[3], 'day of month', 1, 31, null);
  months := job_queue.cron_field(
    v_fields[4], 'month', 1, 12, '{JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC}');
  weekdays := job_queue.cron_field(
    v_fields[5], 'day of week', 0, 7, '{SUN,MON,TUE,WED,THU,FRI,SAT}');
  if 7 = any (weekdays) then
    weekdays := 0 || weekdays;
  end if;
  needs_both := v_fields[3] like '*%' or v_fields[5] like '*%';
  is_fixed := v_fields[1] not like '*%' and v_fields[2] not like '*%';
  return next;
end
$$;

comment on function job_queue.cron_fields(text) is
  'Returns the values of the five fields, Sunday as 0, whether a day must match both as day '
  'of month and as day of week, and whether the times are fixed: next_tick says what that means. '
  'Errors: JQ001. Private to this schema.';

revoke execute on function job_queue.cron_fields(text) from public;
