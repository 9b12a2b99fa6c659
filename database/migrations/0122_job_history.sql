-- depends: 0121_get_job

drop function job_queue.job_history(uuid);

-- Changes nothing.

create function job_queue.job_history(
  p_job_id uuid
)
returns table (
  at timestamptz,
  verb text,
  from_status text,
  to_status text,
  claim_id bigint,
  actor text,
  detail jsonb,
  attempt integer
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
  select
    event.at,
    event.verb,
    event.from_status,
    event.to_status,
    event.claim_id,
    event.actor,
    event.detail,
    event.attempt
    from job_queue.job_events as event
   where event.job_id = p_job_id
   order by event.event_id
$$;

comment on function job_queue.job_history(uuid) is
  'All that happened to the job, oldest first. No row: there is no such job.';

revoke execute on function job_queue.job_history(uuid) from public;
