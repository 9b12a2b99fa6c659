-- depends: 0199_move_marks

-- Changes no job: looks for what lies before the marks.
--
-- Where the first job of a lane is no longer far from its beginning, its mark goes. A sweep takes a
-- twentieth of the time at most. A due time more than ten minutes ahead was set by a clock that has
-- since been put back.

create function job_queue.sweep_marks()
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_due bigint := pg_sequence_last_value('job_queue.sweep_due');
  v_start bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  v_mark record;
  v_front record;
  v_end bigint;
begin
  if v_due between v_start and v_start + 600000000 then
    return;
  end if;

  perform setval('job_queue.sweep_due', v_start + 60000000);
  for v_mark in select * from job_queue.marks as mark where mark.is_set loop
    v_front := job_queue.front_of_lane(
      v_mark.queue, v_mark.job_type, v_mark.priority, true, 1500);
    perform job_queue.set_mark(
      v_mark.mark_id, case when v_front.is_far then v_front.run_at else 'epoch' end, v_front.seq);
    if not v_front.is_far and pg_try_advisory_xact_lock(hashtextextended(
      format('job_queue mark %s %s %s', v_mark.priority, v_mark.job_type, v_mark.queue), 0))
    then
      update job_queue.marks as mark set is_set = false where mark.mark_id = v_mark.mark_id;
    end if;
  end loop;
  v_end := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  perform setval(
    'job_queue.sweep_due', v_end + least(greatest(20 * (v_end - v_start), 500000), 600000000));
end
$$;

comment on function job_queue.sweep_marks() is
  'Sets each mark to the first job of its lane, wherever that is, and takes it away if that is not '
  'far; unless somebody has within the last half second or, if that took long, within twenty times '
  'as long. Private to this schema.';

revoke execute on function job_queue.sweep_marks() from public;
