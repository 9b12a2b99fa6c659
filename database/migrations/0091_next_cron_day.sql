-- depends: 0090_cron_fields

-- Changes nothing: finds the next day on which a cron expression is due.

create function job_queue.next_cron_day(
  p_days integer[],
  p_months integer[],
  p_weekdays integer[],
  p_needs_both boolean,
  p_from date,
  p_until date
)
returns date
language plpgsql
immutable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_month date := p_from - extract(day from p_from)::integer + 1;
  v_length integer;
  v_weekday integer;
  v_day integer;
begin
  while v_month <= p_until loop
    v_length := (v_month + interval '1 month')::date - v_month;
    if extract(month from v_month)::integer = any (p_months) then
      v_weekday := extract(dow from v_month)::integer;
      select min(day)
        into v_day
        from generate_series(greatest(p_from - v_month, 0), v_length - 1) as day
       where case
           when p_needs_both then
             day + 1 = any (p_days) and (v_weekday + day) % 7 = any (p_weekdays)
           else
             day + 1 = any (p_days) or (v_weekday + day) % 7 = any (p_weekdays)
         end;
      if v_day is not null then
        return v_month + v_day;
      end if;
    end if;
    v_month := v_month + v_length;
  end loop;
  return null;
end
$$;

comment on function job_queue.next_cron_day(
  integer[], integer[], integer[], boolean, date, date
) is
  'Returns the first day that matches, from p_from to the end of the month of p_until, or null. '
  'Private to this schema.';

revoke execute on function job_queue.next_cron_day(
  integer[], integer[], integer[], boolean, date, date
) from public;
