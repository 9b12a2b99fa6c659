-- depends: 0065_see_worker

-- Changes no status: what claim_next_job and claim_jobs begin with.

create function job_queue.pick_jobs_for(
  p_limit integer,
  p_worker text,
  p_queues text[],
  p_job_types text[],
  p_lease interval
)
returns job_queue.pick[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_picks job_queue.pick[];
begin
  if p_limit between 1 and 10000 is not true then
    perform job_queue.raise_invalid_argument(
      'limit', p_limit::text, 'Pass a number of jobs from 1 to 10000.');
  end if;
  if p_queues = '{}' then
    perform job_queue.raise_invalid_argument(
      'queues', '{}', 'Pass an array of at least one name, or null for all queues.');
  end if;
  perform job_queue.check_lease(coalesce(p_lease, '0'));
  perform job_queue.recover_if_due();

  v_picks := job_queue.pick_jobs(p_limit, p_queues, p_job_types);
  if v_picks = '{}' or random() < 0.01 then
    perform job_queue.see_worker(p_worker, p_queues, p_job_types);
  end if;
  return v_picks;
end
$$;

comment on function job_queue.pick_jobs_for(integer, text, text[], text[], interval) is
  'pick_jobs, once the arguments have been checked and what is overdue has been recovered. Private '
  'to this schema. Errors: JQ001 for an argument out of range.';

revoke execute on function job_queue.pick_jobs_for(integer, text, text[], text[], interval)
  from public;
