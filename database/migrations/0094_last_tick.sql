-- depends: 0093_cron_instant

-- Changes nothing: of several ticks that have passed, the last.
--
-- Looks a short time back before a long one, so that the ticks of a long silence need not all be
-- counted.

create function job_queue.last_tick(
  p_cron text,
  p_time_zone text,
  p_tick timestamptz,
  p_until timestamptz
)
returns timestamptz
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tick timestamptz := p_tick;
  v_next timestamptz;
begin
  foreach v_next in array array[
    p_until - interval '1 hour', p_until - interval '1 day', p_until - interval '40 days'
  ] loop
    continue when v_next <= p_tick;
    v_next := job_queue.next_tick(p_cron, p_time_zone, v_next);
    if v_next <= p_until then
      v_tick := v_next;
      exit;
    end if;
  end loop;

  loop
    v_next := job_queue.next_tick(p_cron, p_time_zone, v_tick);
    exit when v_next > p_until or v_next is null;
    v_tick := v_next;
  end loop;
  return v_tick;
end
$$;

comment on function job_queue.last_tick(text, text, timestamptz, timestamptz) is
  'The last tick up to p_until, of which p_tick is known to be one. Private to this schema.';

revoke execute on function job_queue.last_tick(text, text, timestamptz, timestamptz) from public;
