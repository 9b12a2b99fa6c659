-- Changes no job: says from where on a lane is to be searched.
--
-- The two numbers are not written at once. In this order whoever reads them in between looks from
-- too early on, or passes over jobs that come before the mark, as it may.

create function job_queue.set_mark(
  p_mark_id integer,
  p_run_at timestamptz,
  p_seq bigint
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seq regclass := format('job_queue.mark_seq_%s', p_mark_id)::regclass;
begin
  perform setval(v_seq, 0);
  perform setval(
    format('job_queue.mark_run_at_%s', p_mark_id)::regclass,
    greatest((extract(epoch from p_run_at) * 1000000)::bigint, 0));
  perform setval(v_seq, p_seq - 1) where p_seq > 0;
end
$$;

comment on function job_queue.set_mark(integer, timestamptz, bigint) is
  'Has the lane searched from the job with p_run_at and p_seq on; from its beginning, if p_run_at '
  'is 1970 or before. Private to this schema.';

revoke execute on function job_queue.set_mark(integer, timestamptz, bigint) from public;
