-- Changes no job: notes who has asked for work.
--
-- Of two transactions that would note the same worker, one gets the advisory lock; the other does
-- not wait.

create or replace function job_queue.see_worker(
  p_worker text,
  p_queues text[],
  p_job_types text[]
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  if p_worker is null or length(p_worker) > 500 or exists (
    select
      from job_queue.worker_sightings as worker
     where worker.worker = p_worker
       and worker.seen_at > clock_timestamp() - interval '5 seconds'
       and worker.queues is not distinct from p_queues
       and worker.job_types is not distinct from p_job_types
  ) or not pg_try_advisory_xact_lock(hashtextextended('job_queue worker ' || p_worker, 0)) then
    return;
  end if;

  insert into job_queue.worker_sightings (worker, queues, job_types, seen_at)
  values (p_worker, p_queues, p_job_types, clock_timestamp())
  on conflict (worker) do update
     set queues = excluded.queues,
         job_types = excluded.job_types,
         seen_at = excluded.seen_at;
end
$$;

comment on function job_queue.see_worker(text, text[], text[]) is
  'Notes in workers who has asked for work, every five seconds. Private to this schema.';

revoke execute on function job_queue.see_worker(text, text[], text[]) from public;
