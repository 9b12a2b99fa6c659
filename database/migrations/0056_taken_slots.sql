-- depends: 0055_free_slots

-- Changes nothing.
--
-- Volatile, so that it sees the claims that were committed since its caller's query began.

create function job_queue.taken_slots(
  p_queue text,
  p_key text
)
returns integer[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  if p_key is null then
    return array(
      select claim.queue_slot
        from job_queue.claims as claim
       where claim.queue = p_queue
         and claim.queue_slot is not null);
  end if;
  return array(
    select claim.key_slot
      from job_queue.claims as claim
     where claim.queue = p_queue
       and claim.concurrency_key = p_key
       and claim.key_slot is not null);
end
$$;

comment on function job_queue.taken_slots(text, text) is
  'The slots that claims have of the queue or, if p_key is not null, of that key in it. Private to '
  'this schema.';

revoke execute on function job_queue.taken_slots(text, text) from public;
