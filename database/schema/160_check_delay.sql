-- Changes nothing: refuses a delay that points backwards or too far ahead.

create function job_queue.check_delay(
  p_name text,
  p_delay interval
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_delay not between interval '0' and interval '10 years' then
    perform job_queue.raise_invalid_argument(
      p_name, p_delay::text, 'Pass an interval from 0 to 10 years.');
  end if;
end
$$;

comment on function job_queue.check_delay(text, interval) is
  'Raises JQ001 if the delay is out of range. Private to this schema.';

revoke execute on function job_queue.check_delay(text, interval) from public;
