-- depends: 0070_refusal

-- Changes nothing: when a job that is queued again may run.
--
-- Where the verb names no wait, it is random between nothing and retry_delay, doubled for each
-- attempt before ("full jitter"), so that what failed together does not come back together:
-- Exponential Backoff And Jitter, AWS Architecture Blog, 2015.

create function job_queue.next_run_at(
  p_verb text,
  p_run_at timestamptz,
  p_delay interval,
  p_attempts integer,
  p_retry_delay interval,
  p_retry_delay_max interval
)
returns timestamptz
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_verb in ('release', 'reclaim') then p_run_at
    else clock_timestamp() + coalesce(p_delay, make_interval(secs => random() * least(
      extract(epoch from p_retry_delay) * power(2, least(p_attempts - 1, 30)),
      extract(epoch from p_retry_delay_max))))
  end
$$;

comment on function job_queue.next_run_at(
  text, timestamptz, interval, integer, interval, interval
) is
  'When a job may run that the verb has queued again: at once, in its old place, if its worker '
  'gave it back or was lost; else after a wait. Private to this schema.';

revoke execute on function job_queue.next_run_at(
  text, timestamptz, interval, integer, interval, interval
) from public;
