-- Changes nothing: whether a job could be stored and run.
--
-- Like new_job_id, and for the same reason, it neither runs as its owner nor pins its search_path:
-- inlined into the two statements that ask it, it costs next to nothing. As CHECKs on jobs the same
-- questions would be asked again at every update, and as the condition of a trigger they cost 35
-- µs a statement.

create function job_queue.is_in_order(
  p_job_type text,
  p_payload jsonb,
  p_sleep_seconds integer,
  p_message text,
  p_queue text,
  p_priority integer,
  p_run_at timestamptz,
  p_max_attempts integer,
  p_retry_delay interval,
  p_retry_delay_max interval,
  p_max_losses integer,
  p_timeout interval,
  p_unique_key text,
  p_concurrency_key text,
  p_on_parent_failure text
)
returns boolean
language sql
stable
as $$
  select coalesce(
    pg_catalog.length(p_job_type) between 1 and 100
    and pg_catalog.pg_column_size(p_payload) <= 4194304
    and p_sleep_seconds between 0 and 86400
    and (p_message is null or pg_catalog.length(p_message) <= 10000)
    and pg_catalog.length(p_queue) between 1 and 100
    and p_priority between 0 and 3
    and (p_run_at is null or pg_catalog.isfinite(p_run_at))
    and (p_max_attempts is null or p_max_attempts >= 1)
    and (p_retry_delay is null or p_retry_delay between interval '0' and interval '1 year')
    and (p_retry_delay_max is null or p_retry_delay_max between interval '0' and interval '1 year')
    and (p_max_losses is null or p_max_losses >= 0)
    and (p_timeout is null or p_timeout between interval '1 millisecond' and interval '1 year')
    and (p_unique_key is null or pg_catalog.length(p_unique_key) between 1 and 500)
    and (p_concurrency_key is null or pg_catalog.length(p_concurrency_key) between 1 and 500)
    and p_on_parent_failure in ('cancel', 'release'),
    false)
$$;

comment on function job_queue.is_in_order(
  text, jsonb, integer, text, text, integer, timestamptz, integer, interval, interval, integer,
  interval, text, text, text
) is
  'Whether these arguments of enqueue_job are in range. Private to this schema.';

revoke execute on function job_queue.is_in_order(
  text, jsonb, integer, text, text, integer, timestamptz, integer, interval, interval, integer,
  interval, text, text, text
) from public;
