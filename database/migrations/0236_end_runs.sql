-- depends: 0235_list_events

-- running -> succeeded or queued or failed or cancelled
--
-- Its first step is the fence: a run whose claim is gone, or is another job's, is left alone. What
-- becomes of the job is decided in the UPDATE, on the row as it is once it is locked, so that a
-- cancel_job which was just changing it counts.
--
-- Claims are locked in the order of their numbers, and then their jobs are changed in the same
-- order. Of two calls with one claim, the second waits for the first one's transaction at the
-- claim's row and then finds it gone.
--
-- Each claim is looked up by itself, and deleted by its number: a join might begin with all the
-- claims there are, and all the dead ones, once the planner has seen the table empty.

create or replace function job_queue.end_runs(
  p_verb text,
  p_runs job_queue.run[]
)
returns text[]
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
  v_run record;
  v_statuses text[] := array_fill(null::text, array[cardinality(p_runs)]);
  v_uncounted integer := (p_verb in ('snooze', 'release', 'reclaim'))::integer;
  v_due text[];
begin
  for v_run in
    with held as materialized (
      select given.*, claim.queue, claim.concurrency_key,
             case when p_verb in ('fail', 'time_out', 'reclaim') then
               jsonb_build_object('error', left(given.error, 10000)) end as detail
        from (select distinct on (run.claim_id, run.job_id) run.*
                from unnest(p_runs) with ordinality as run (
                       job_id, claim_id, result, error, retryable, delay, position)
               order by run.claim_id, run.job_id, run.position) as given
       cross join lateral (
         select claim.queue, claim.concurrency_key from job_queue.claims as claim
          where claim.claim_id = given.claim_id and claim.job_id = given.job_id for update) as claim
    ),
    ended as (
      delete from job_queue.claims as claim
       where claim.claim_id = any (array(select held.claim_id from held))
    ),
    changed as (
      update job_queue.jobs as job
         set (status, claimable, attempts, losses, run_at, held_key, result, failed_at, updated_at)
           = (select after.status, after.status = 'queued', job.attempts - v_uncounted,
                     job.losses + (p_verb = 'reclaim')::integer,
                     case after.status when 'queued' then job_queue.next_run_at(p_verb, job.run_at,
                       held.delay, job.attempts, job.retry_delay, job.retry_delay_max)
                     else job.run_at end,
                     case after.status when 'queued' then job.held_key end,
                     case after.status when 'succeeded' then held.result
                                       when 'failed' then held.detail end,
                     case after.status when 'failed' then clock_timestamp() end, clock_timestamp()
                from (select job_queue.status_after(p_verb, job.cancel_requested, held.retryable,
                        job.attempts, job.max_attempts, job.losses, job.max_losses) as status
                      offset 0) as after)
        from held where job.id = held.job_id
      returning held.*, job.status, job.attempts + v_uncounted as attempt,
              case when job.claimable and job.run_at <= clock_timestamp() then job.queue end as due
    ),
    recorded as (
      insert into job_queue.job_events (
        job_id, verb, from_status, to_status, claim_id, attempt, detail)
      select job_id, p_verb, 'running', status, claim_id, attempt, detail from changed
    )
    select * from changed
  loop
    v_statuses[v_run.position] := v_run.status;
    v_due := v_due || v_run.due;
    if v_run.concurrency_key is not null then
      perform job_queue.put_jobs_back(v_run.queue, v_run.concurrency_key, 1);
    end if;
  end loop;
  perform job_queue.settle_dependencies(array(select run.job_id from unnest(p_runs) as run));
  perform job_queue.wake_workers(v_due) where array_remove(v_due, null) <> '{}';
  return v_statuses;
end
$$;

comment on function job_queue.end_runs(text, job_queue.run[]) is
  'Ends the runs as the verb has it, and returns the new status of each job, in order; null for a '
  'run that was over, or whose claim another has. Private to this schema.';

revoke execute on function job_queue.end_runs(text, job_queue.run[]) from public;
