-- depends: 0114_fail_job

-- running -> queued or cancelled

create or replace function job_queue.snooze_job(
  p_job_id uuid,
  p_claim_id bigint,
  p_delay interval
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform job_queue.check_delay('delay', coalesce(p_delay, '-1 second'));
  perform job_queue.end_run('snooze', p_job_id, p_claim_id, p_delay => p_delay);
end
$$;

comment on function job_queue.snooze_job(uuid, bigint, interval) is
  'Puts a job off: it is queued again for after p_delay, and the attempt does not count. If '
  'cancel_job asked for it, it is cancelled. Errors, each changing nothing: JQ001 for a wrong '
  'p_delay, JQ002 no such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.snooze_job(uuid, bigint, interval) from public;
