-- -> queued or blocked
--
-- The loop goes round again only for jobs whose unique key was held by one that has ended in
-- between.

create function job_queue.enqueue_jobs(
  p_jobs jsonb,
  p_detail jsonb default null
)
returns table (
  id uuid,
  created boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_jobs job_queue.new_job[] := job_queue.parse_jobs(p_jobs);
  v_ids uuid[] := array(select job_queue.new_job_id() from generate_subscripts(v_jobs, 1));
  v_created boolean[] := array_fill(true, array[cardinality(v_jobs)]);
  v_open boolean[] := v_created;
  v_count integer := cardinality(v_jobs);
  v_job record;
begin
  loop
    v_count := v_count - job_queue.add_jobs(v_jobs, v_ids, v_open, p_detail);
    exit when v_count = 0;

    for v_job in
      select new.position, own.id is not null as is_added, holder.id as holder_id
        from unnest(v_jobs, v_open) with ordinality as new (
          job_type, payload, sleep_seconds, message, queue, priority, run_at, delay, max_attempts,
          retry_delay, retry_delay_max, max_losses, timeout, unique_key, concurrency_key,
          depends_on, on_parent_failure, trace_context, is_open, position)
        left join job_queue.jobs as own on own.id = v_ids[new.position]
        left join job_queue.jobs as holder
          on holder.queue = new.queue
         and holder.held_key = new.unique_key
       where new.is_open
    loop
      v_open[v_job.position] := not v_job.is_added and v_job.holder_id is null;
      if not v_job.is_added and v_job.holder_id is not null then
        v_ids[v_job.position] := v_job.holder_id;
        v_created[v_job.position] := false;
        v_count := v_count - 1;
      end if;
    end loop;
    exit when v_count = 0;
  end loop;

  perform job_queue.add_dependencies(new.id, new.depends_on, new.on_parent_failure)
     from unnest(v_jobs, v_ids, v_created) as new (
       job_type, payload, sleep_seconds, message, queue, priority, run_at, delay, max_attempts,
       retry_delay, retry_delay_max, max_losses, timeout, unique_key, concurrency_key,
       depends_on, on_parent_failure, trace_context, id, created)
    where new.created
      and cardinality(new.depends_on) > 0;

  return query select * from unnest(v_ids, v_created);
end
$$;

comment on function job_queue.enqueue_jobs(jsonb, jsonb) is
  'Adds many jobs, all or, if one is refused, none: p_jobs is a JSON array of objects keyed like '
  'the parameters of enqueue_job without their p_. Returns a row for each, in the same order: its '
  'id, and whether it was added; false if an unfinished job had its unique key, whose id that is '
  'then. p_detail: what job_history is to say of where they came from. Errors: JQ001 for an '
  'argument out of range, JQ002 for a parent that does not exist, class 22 for a value of the '
  'wrong type.';

revoke execute on function job_queue.enqueue_jobs(jsonb, jsonb) from public;
