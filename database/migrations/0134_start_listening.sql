-- depends: 0133_check_queues

-- Changes no job: lets a worker with nothing to do be woken.
--
-- Whoever makes a job claimable sends a NOTIFY only if a session holds the lock of the queue, or
-- that of all queues; the lock that all who sleep hold besides spares it most of the asking. The
-- locks are those of the session, shared, and never waited for.

create function job_queue.start_listening(
  p_queues text[] default null
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_queue text;
  v_lock bigint;
  v_locks bigint[] := array[]::bigint[];
begin
  perform job_queue.check_queues(p_queues);
  for v_queue in
    select distinct named.queue
      from unnest(coalesce(p_queues, array[null::text])) as named (queue)
  loop
    foreach v_lock in array array[
      job_queue.sleepers_lock(''), job_queue.sleepers_lock(v_queue)]
    loop
      if not pg_try_advisory_lock_shared(v_lock) then
        perform pg_advisory_unlock_shared(taken.lock)
           from unnest(v_locks) as taken (lock);
        return false;
      end if;
      v_locks := v_locks || v_lock;
    end loop;
    execute format('listen %I', job_queue.channel_of(v_queue));
  end loop;
  return true;
end
$$;

comment on function job_queue.start_listening(text[]) is
  'For a worker that found nothing to do: until stop_listening, its session gets a notification '
  'when one of p_queues, or any queue if null, has a job that may run at once. Call it outside a '
  'transaction, claim once more, since a job may have come meanwhile, and then wait for the first '
  'notification, but no longer than until the next poll: one is missed if the transaction that '
  'sends it began before. It has no payload; its channel, job_queue or job_queue_ and the md5 of '
  'the queue, need not be known. Returns false, and changes nothing that matters, if it would '
  'have had to wait: just poll. Each call that returned true needs one of stop_listening. Needs a '
  'session of its own: behind PgBouncer in transaction mode, poll. Errors: JQ001 for no queue, or '
  'a name that no queue can have.';

revoke execute on function job_queue.start_listening(text[]) from public;

select job_queue.grant_roles();
