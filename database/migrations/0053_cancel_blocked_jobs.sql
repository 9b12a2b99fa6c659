-- depends: 0052_unblock_jobs

-- blocked -> cancelled

create function job_queue.cancel_blocked_jobs(
  p_job_ids uuid[]
)
returns uuid[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_job_ids uuid[];
begin
  with cancelled as (
    update job_queue.jobs as job
       set status = 'cancelled',
           held_key = null,
           updated_at = clock_timestamp()
     where job.id = any (p_job_ids)
       and job.status = 'blocked'
    returning job.id
  ),
  recorded as (
    insert into job_queue.job_events (job_id, verb, from_status, to_status, detail)
    select cancelled.id, 'cancel', 'blocked', 'cancelled',
           jsonb_build_object('reason', 'a job that it depends on failed or was cancelled')
      from cancelled
  )
  select array_agg(cancelled.id)
    into v_job_ids
    from cancelled;
  return v_job_ids;
end
$$;

comment on function job_queue.cancel_blocked_jobs(uuid[]) is
  'Cancels those of these jobs that are blocked, because a parent failed or was cancelled, and '
  'returns them. The caller has locked them. Private to this schema.';

revoke execute on function job_queue.cancel_blocked_jobs(uuid[]) from public;
