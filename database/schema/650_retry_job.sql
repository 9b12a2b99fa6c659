-- failed or cancelled -> queued

create function job_queue.retry_job(
  p_job_id uuid
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_job record;
begin
  select job.status, job.result, job.queue
    into v_job
    from job_queue.jobs as job
   where job.id = p_job_id
     and job.status in ('failed', 'cancelled')
     for update;
  if not found then
    raise exception using
      errcode = 'JQ006',
      message = format('job %s is %s', p_job_id, job_queue.status_of(p_job_id)),
      hint = 'Only a job that is failed or cancelled can be retried.';
  end if;

  begin
    update job_queue.jobs as job
       set status = 'queued',
           claimable = true,
           run_at = clock_timestamp(),
           attempts = 0,
           losses = 0,
           result = null,
           held_key = job.unique_key,
           cancel_requested = false,
           failed_at = null,
           updated_at = clock_timestamp()
     where job.id = p_job_id;
  exception
    when unique_violation then
      raise exception using
        errcode = 'JQ007',
        message = format('the unique key of job %s is held by another job', p_job_id),
        hint = 'Retry the job when the other has ended, or cancel that.';
  end;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, detail)
  values (p_job_id, 'retry', v_job.status, 'queued',
          jsonb_build_object('result', v_job.result));
  perform job_queue.wake_workers(array[v_job.queue]);
end
$$;

comment on function job_queue.retry_job(uuid) is
  'Queues a failed or cancelled job again, with all its attempts and losses before it; job_history '
  'keeps what went before. Errors, each changing nothing: JQ002 no such job, JQ006 it is neither '
  'failed nor cancelled, JQ007 another job has its unique key.';

revoke execute on function job_queue.retry_job(uuid) from public;
