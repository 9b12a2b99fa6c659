-- depends: 0065_refusal

-- Changes nothing: how long a job waits for its next attempt.
--
-- Random between nothing and retry_delay, doubled for each attempt before ("full jitter"), so that
-- what failed together does not come back together: Exponential Backoff And Jitter, AWS
-- Architecture Blog, 2015.

create function job_queue.retry_wait(
  p_attempts integer,
  p_retry_delay interval,
  p_retry_delay_max interval
)
returns interval
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select make_interval(secs => random() * least(
    extract(epoch from p_retry_delay) * power(2, least(p_attempts - 1, 30)),
    extract(epoch from p_retry_delay_max)))
$$;

comment on function job_queue.retry_wait(integer, interval, interval) is
  'The wait after that many attempts. Private to this schema.';

revoke execute on function job_queue.retry_wait(integer, interval, interval) from public;
