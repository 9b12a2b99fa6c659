-- Changes nothing: refuses a lease that is too short or too long.

create function job_queue.check_lease(
  p_lease interval
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_lease not between interval '1 millisecond' and interval '1 day' then
    perform job_queue.raise_invalid_argument(
      'lease', p_lease::text, 'Pass an interval from 1 millisecond to 1 day.');
  end if;
end
$$;

comment on function job_queue.check_lease(interval) is
  'Raises JQ001 if the lease is out of range. Private to this schema.';

revoke execute on function job_queue.check_lease(interval) from public;
