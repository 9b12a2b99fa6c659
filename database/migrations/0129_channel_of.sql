-- depends: 0128_sleepers_lock

-- Changes nothing: where the workers listen that sleep until a queue has work.
--
-- A channel has a name of at most 63 bytes, and a queue one of up to 100 characters.

create function job_queue.channel_of(
  p_queue text
)
returns text
language sql
immutable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select 'job_queue' || coalesce('_' || md5(p_queue), '')
$$;

comment on function job_queue.channel_of(text) is
  'The channel that LISTEN and NOTIFY name: job_queue_ and the md5 of the queue; of a null queue, '
  'job_queue, that of the workers which wait for all queues. Private to this schema.';

revoke execute on function job_queue.channel_of(text) from public;
