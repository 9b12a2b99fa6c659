-- depends: 0204_count_waiting

-- Changes no status: finds and locks the first jobs of a queue.
--
-- Each lane (job type and priority) is looked at by itself, so that jobs of other types, and those
-- of a better priority whose time has not come, cost nothing; then the lanes are merged. Which jobs
-- come first is asked without locking them, and then they are locked one by one, each where it
-- lies, until there are as many as are wanted: never more than p_limit. Where others hold too many
-- of them, more are looked at.

create function job_queue.pick_front(
  p_queue text,
  p_job_types text[],
  p_limit integer,
  p_has_key_limit boolean default false
)
returns job_queue.pick[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_start timestamptz := clock_timestamp();
  v_effort bigint := job_queue.effort();
  v_window integer := p_limit + 5;
  v_found record;
begin
  loop
    with front as materialized (
      select level.priority, job.place, job.run_at, job.seq
        from generate_series(0, 3) as level (priority)
       cross join unnest(p_job_types) as lane (job_type)
       cross join lateral job_queue.first_of_lane(
         p_queue, lane.job_type, level.priority, v_start, v_window) as job
       order by level.priority, job.run_at, job.seq
       limit v_window
    ),
    locked as materialized (
      select job.*
        from front
       cross join lateral (
         select job.id, job.attempts, job.timeout, job.concurrency_key
           from job_queue.jobs as job
          where job.ctid = front.place
            and job.claimable
            for update skip locked
       ) as job
       limit p_limit
    )
    select array(
             select row(locked.id, locked.attempts + 1, locked.timeout, null,
                        case when p_has_key_limit then locked.concurrency_key end, null, null)
                    ::job_queue.pick
               from locked) as picks,
           (select count(*) from front) as seen,
           exists (
             select from job_queue.marks as mark
              where mark.queue = p_queue and mark.is_set) as is_marked
      into v_found;
    exit when cardinality(v_found.picks) = p_limit or v_found.seen < v_window;
    v_window := 4 * v_window;
  end loop;

  if job_queue.effort() - v_effort
     > cardinality(p_job_types) * (500 + 4 * v_window)
       + (case when v_found.is_marked then 200 else 1500 end)
  then
    perform job_queue.move_marks(p_queue, p_job_types, v_found.picks);
  end if;
  return v_found.picks;
end
$$;

comment on function job_queue.pick_front(text, text[], integer, boolean) is
  'The first jobs of the queue of these types, at most p_limit, in order, their rows locked. '
  'Private to this schema.';

revoke execute on function job_queue.pick_front(text, text[], integer, boolean) from public;
