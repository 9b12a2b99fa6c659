-- depends: 0127_is_in_order

-- Changes nothing: which advisory lock the workers share that sleep until a queue has work.
--
-- Inlined like is_in_order, and for the same reason: whoever enqueues asks for it.

create function job_queue.sleepers_lock(
  p_queue text
)
returns bigint
language sql
immutable
as $$
  select pg_catalog.hashtextextended('job_queue sleepers' || coalesce(' ' || p_queue, ''), 0)
$$;

comment on function job_queue.sleepers_lock(text) is
  'The key of that lock; of a null queue, that of the workers which wait for all queues; of an '
  'empty name, which no queue has, that of all who sleep. Private to this schema.';

revoke execute on function job_queue.sleepers_lock(text) from public;
