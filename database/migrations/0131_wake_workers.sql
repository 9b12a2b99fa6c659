-- depends: 0130_has_sleepers

-- Changes no job: wakes the workers that sleep until one of these queues has work.
--
-- A NOTIFY is sent when the transaction commits, once however often it was asked for, under a lock
-- that all who send one share: so none is sent where nobody sleeps, nor for a queue that is paused.

create function job_queue.wake_workers(
  p_queues text[]
)
returns void
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
  v_queue text;
begin
  if not job_queue.has_sleepers('') then
    return;
  end if;
  for v_queue in
    select distinct due.queue
      from unnest(p_queues) as due (queue)
      left join job_queue.queues as policy on policy.queue = due.queue
     where due.queue is not null
       and policy.paused is not true
  loop
    if job_queue.has_sleepers(v_queue) then
      perform pg_notify(job_queue.channel_of(v_queue), '');
    end if;
  end loop;
  if found and job_queue.has_sleepers(null) then
    perform pg_notify(job_queue.channel_of(null), '');
  end if;
end
$$;

comment on function job_queue.wake_workers(text[]) is
  'Called by whatever makes a job claimable that may run at once. Nulls are passed over. Private '
  'to this schema.';

revoke execute on function job_queue.wake_workers(text[]) from public;
