-- depends: 0184_enqueue_once

-- Changes no job: deletes idempotency keys that have expired.
--
-- One that is locked, because enqueue_once is just taking it over, is passed over.

create function job_queue.prune_idempotency_keys(
  p_limit integer default 10000
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_count integer;
begin
  with expired as materialized (
    select known.client, known.idempotency_key
      from job_queue.idempotency_keys as known
     where known.created_at <= clock_timestamp() - interval '24 hours'
     order by known.created_at
     limit p_limit
       for update skip locked
  )
  delete from job_queue.idempotency_keys as known
   using expired
   where known.client = expired.client
     and known.idempotency_key = expired.idempotency_key;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

comment on function job_queue.prune_idempotency_keys(integer) is
  'Deletes idempotency keys that are older than 24 hours, p_limit of them at most, and returns how '
  'many. run_maintenance calls it. Private to this schema.';

revoke execute on function job_queue.prune_idempotency_keys(integer) from public;
