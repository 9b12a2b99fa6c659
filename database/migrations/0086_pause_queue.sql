-- depends: 0085_give_slots

-- Changes no job.

create function job_queue.pause_queue(
  p_queue text
)
returns void
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select job_queue.set_queue(p_queue, '{"paused": true}')
$$;

comment on function job_queue.pause_queue(text) is
  'Stops the claims from a queue. Jobs are enqueued all the same, and running ones run on. Errors: '
  'JQ001 for a wrong name.';

revoke execute on function job_queue.pause_queue(text) from public;
