-- Changes nothing.
--
-- A job that is just being enqueued has a run_at of a moment ago, and cannot be seen yet. So the
-- front is never said to be later than that.

create function job_queue.front_of_lane(
  p_queue text,
  p_job_type text,
  p_priority integer,
  p_from_beginning boolean,
  p_far bigint,
  p_run_at timestamptz default null,
  p_seq bigint default null,
  out run_at timestamptz,
  out seq bigint,
  out is_far boolean
)
returns record
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
declare
  v_start timestamptz := clock_timestamp();
  v_effort bigint := job_queue.effort();
begin
  select job.run_at, job.seq
    into front_of_lane.run_at, front_of_lane.seq
    from job_queue.first_of_lane(
      p_queue, p_job_type, p_priority, 'infinity', null, p_from_beginning) as job
   where (job.run_at, job.seq) >= (coalesce(p_run_at, '-infinity'), coalesce(p_seq, 0))
   limit 1;
  is_far := job_queue.effort() - v_effort > p_far;
  if (run_at < v_start - interval '50 ms') is not true then
    run_at := v_start - interval '50 ms';
    seq := 0;
  end if;
end
$$;

comment on function job_queue.front_of_lane(
  text, text, integer, boolean, bigint, timestamptz, bigint
) is
  'The first job of the lane, or the first from the one with p_run_at and p_seq on; or 50 ms ago '
  'if there is none from before then. And whether it took an effort of more than p_far to find it '
  '(is_far). Private to this schema.';

revoke execute on function job_queue.front_of_lane(
  text, text, integer, boolean, bigint, timestamptz, bigint
) from public;
