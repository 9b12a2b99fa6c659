-- Changes no job: the worker is awake, and need not be woken.
--
-- Postgres warns of a lock that the session does not hold. The client is spared that; a line in the
-- server's log stays.

create function job_queue.stop_listening(
  p_queues text[] default null
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set client_min_messages = error
as $$
begin
  perform job_queue.check_queues(p_queues);
  perform pg_advisory_unlock_shared(job_queue.sleepers_lock(''))
     from (select distinct named.queue
             from unnest(coalesce(p_queues, array[null::text])) as named (queue)) as listened
    where pg_advisory_unlock_shared(job_queue.sleepers_lock(listened.queue));
end
$$;

comment on function job_queue.stop_listening(text[]) is
  'Takes one start_listening with the same p_queues back: nobody sends this session a notification '
  'any more. One that is on its way still comes, and so does what is sent to another worker that '
  'sleeps, for the LISTEN stays until UNLISTEN or the end of the session: let what has come be '
  'before the next start_listening, or be woken for nothing. Without a start_listening before, it '
  'does nothing. Errors: JQ001 for no queue, or a name that no queue can have.';

revoke execute on function job_queue.stop_listening(text[]) from public;
