-- depends: 0198_front_of_lane

-- Changes no job: has the next search of these lanes begin where this one found the first job.
--
-- Only for those where that is far from where it began. What others have locked before it they are
-- just taking. A lane that has no mark yet gets one; of two transactions that would make it, one
-- gets the advisory lock, and the other does not wait.

create function job_queue.move_marks(
  p_queue text,
  p_job_types text[],
  p_picks job_queue.pick[]
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = on
set jit = off
as $$
declare
  v_lane record;
  v_front record;
begin
  for v_lane in
    with picked as materialized (
      select distinct on (job.job_type, job.priority)
             job.job_type, job.priority, job.run_at, job.seq
        from unnest(p_picks) as pick
        join job_queue.jobs as job on job.id = pick.job_id
       order by job.job_type, job.priority, job.run_at, job.seq
    )
    select lane.job_type, level.priority, known.mark_id, coalesce(known.is_set, false) as is_set,
           picked.run_at, picked.seq
      from unnest(p_job_types) as lane (job_type)
     cross join generate_series(0, 3) as level (priority)
      left join job_queue.marks as known
        on known.queue = p_queue
       and known.job_type = lane.job_type
       and known.priority = level.priority
      left join picked
        on picked.job_type = lane.job_type
       and picked.priority = level.priority
  loop
    v_front := job_queue.front_of_lane(
      p_queue, v_lane.job_type, v_lane.priority, false,
      case when v_lane.is_set then 200 else 1500 end, v_lane.run_at, v_lane.seq);
    continue when not v_front.is_far;
    if not v_lane.is_set then
      continue when not pg_try_advisory_xact_lock(hashtextextended(
        format('job_queue mark %s %s %s', v_lane.priority, v_lane.job_type, p_queue), 0));
      insert into job_queue.marks as mark (queue, job_type, priority)
      values (p_queue, v_lane.job_type, v_lane.priority)
      on conflict (queue, job_type, priority) do update
         set is_set = true
      returning mark.mark_id into v_lane.mark_id;
    end if;
    perform job_queue.set_mark(v_lane.mark_id, v_front.run_at, v_front.seq);
  end loop;
end
$$;

comment on function job_queue.move_marks(text, text[], job_queue.pick[]) is
  'Moves the marks of those of these lanes of the queue whose front is far: to the first of '
  'p_picks that is of the lane or, if none is, to its first job. Private to this schema.';

revoke execute on function job_queue.move_marks(text, text[], job_queue.pick[]) from public;
