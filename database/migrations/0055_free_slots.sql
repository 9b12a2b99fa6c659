-- depends: 0054_waiting_queues

-- Changes nothing: reserves slots of a queue, or of a key in it, for the caller's transaction.
--
-- Of two transactions that want the same slot, one gets the advisory lock, which it holds until it
-- ends; the other passes that slot over instead of waiting. Whether a slot is still free is asked
-- again once it is locked: the claim that took it may have been committed in between. The index on
-- claims would refuse the second claim all the same.
--
-- Where the limit has been lowered, more slots may be taken than there are now. So no more are
-- offered than are left when all that are taken have been counted.

create function job_queue.free_slots(
  p_queue text,
  p_key text,
  p_limit integer,
  p_wanted integer,
  p_reserved integer[] default '{}'
)
returns integer[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_taken integer[] := job_queue.taken_slots(p_queue, p_key) || p_reserved;
  v_left integer := p_limit - cardinality(v_taken);
  v_slots integer[] := array[]::integer[];
begin
  for v_slot in 1..p_limit loop
    exit when v_left <= 0 or cardinality(v_slots) = p_wanted;
    continue when v_slot = any (v_taken);
    v_left := v_left - 1;
    if pg_try_advisory_xact_lock(
      hashtextextended(format('job_queue %s %s %s', v_slot, p_queue, p_key), 0)
    ) then
      v_slots := v_slots || v_slot;
    end if;
  end loop;

  if v_slots = '{}' then
    return v_slots;
  end if;
  v_taken := job_queue.taken_slots(p_queue, p_key) || p_reserved;
  return array(
    select free.slot
      from unnest(v_slots) as free (slot)
     where free.slot <> all (v_taken)
     limit greatest(p_limit - cardinality(v_taken), 0));
end
$$;

comment on function job_queue.free_slots(text, text, integer, integer, integer[]) is
  'Up to p_wanted slots of the queue or, if p_key is not null, of that key in it, which nobody '
  'else can take before the caller''s transaction ends. p_reserved: those that the caller has '
  'already, but no claim yet. Private to this schema.';

revoke execute on function job_queue.free_slots(text, text, integer, integer, integer[])
  from public;
