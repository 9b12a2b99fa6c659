-- Changes nothing.

create function job_queue.count_waiting(
  p_queue text,
  p_job_types text[],
  p_limit integer
)
returns integer
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
  select count(*)
    from (
      select
        from generate_series(0, 3) as level (priority)
       cross join unnest(p_job_types) as lane (job_type)
       cross join lateral job_queue.first_of_lane(
         p_queue, lane.job_type, level.priority, clock_timestamp(), p_limit)
       limit p_limit
    ) as bounded
$$;

comment on function job_queue.count_waiting(text, text[], integer) is
  'How many jobs of the queue and of these types wait to be claimed, or p_limit if there are more. '
  'Private to this schema.';

revoke execute on function job_queue.count_waiting(text, text[], integer) from public;
