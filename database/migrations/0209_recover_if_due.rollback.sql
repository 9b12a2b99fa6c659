-- Changes nothing but what the four functions that it calls change, once a second in the whole
-- system.
--
-- Where that is slow, it is done less often, so that it takes a twentieth of the time at most. A
-- due time more than a minute ahead was set by a clock that has since been put back.

create or replace function job_queue.recover_if_due()
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_due bigint := pg_sequence_last_value('job_queue.reclaim_due');
  v_start bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  v_end bigint;
begin
  if v_due between v_start and v_start + 60000000 then
    return;
  end if;

  perform setval('job_queue.reclaim_due', v_start + 1000000);
  perform job_queue.time_out_jobs();
  perform job_queue.reclaim_expired_claims();
  perform job_queue.settle_overdue_dependencies();
  perform job_queue.put_overdue_jobs_back();
  v_end := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  perform setval(
    'job_queue.reclaim_due', v_end + least(greatest(20 * (v_end - v_start), 1000000), 60000000));
end
$$;

comment on function job_queue.recover_if_due() is
  'Calls time_out_jobs, reclaim_expired_claims, settle_overdue_dependencies and '
  'put_overdue_jobs_back if nobody has within the last second. Private to this schema.';

revoke execute on function job_queue.recover_if_due() from public;
