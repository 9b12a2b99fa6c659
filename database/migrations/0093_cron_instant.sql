-- depends: 0092_next_cron_time

-- Changes nothing: says when a job is run that is due at a time on the clock of a zone.
--
-- Such a time comes once, or twice where the clock is put back over it, or never where the clock is
-- put forward over it. Postgres takes a time that comes twice for the later instant. The earlier
-- one is found with the offset of the day before: no zone has ever changed its clock twice in one
-- day. Postgres takes a time that never comes for one after the gap.

create function job_queue.cron_instant(
  p_local timestamp,
  p_time_zone text,
  p_is_fixed boolean,
  p_after timestamptz
)
returns timestamptz
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last timestamptz := p_local at time zone p_time_zone;
  v_shown timestamp := v_last at time zone p_time_zone;
  v_day_before timestamptz := v_last - interval '24 hours';
  v_offset interval;
  v_first timestamptz;
begin
  if v_shown <> p_local and not p_is_fixed then
    return null;
  end if;

  if v_shown <> p_local then
    select min(minute at time zone p_time_zone)
      into v_first
      from generate_series(p_local, v_shown + interval '1 minute', '1 minute') as minute
     where (minute at time zone p_time_zone) at time zone p_time_zone = minute;
  else
    v_offset := (v_day_before at time zone p_time_zone) - (v_day_before at time zone 'UTC');
    v_first := (p_local - v_offset) at time zone 'UTC';
    if v_first at time zone p_time_zone <> p_local then
      v_first := v_last;
    end if;
  end if;

  return case
    when v_first > p_after then v_first
    when v_last > p_after and not p_is_fixed then v_last
  end;
end
$$;

comment on function job_queue.cron_instant(timestamp, text, boolean, timestamptz) is
  'Returns the first instant after p_after at which a job is run that is due when the clock of '
  'p_time_zone shows p_local, or null: next_tick states the rule. Private to this schema.';

revoke execute on function job_queue.cron_instant(timestamp, text, boolean, timestamptz)
  from public;
