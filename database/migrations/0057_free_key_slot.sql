-- depends: 0056_taken_slots

-- Changes nothing: free_slots for one job more of a key.

create function job_queue.free_key_slot(
  p_queue text,
  p_key text,
  p_limit integer,
  p_picks job_queue.pick[]
)
returns integer
language sql
volatile
strict
security definer
set search_path = pg_catalog, pg_temp
as $$
  select (job_queue.free_slots(
    p_queue, p_key, p_limit, 1,
    array(select mine.key_slot
            from unnest(p_picks) as mine
           where mine.concurrency_key = p_key)))[1]
$$;

comment on function job_queue.free_key_slot(text, text, integer, job_queue.pick[]) is
  'A slot of the key that none of p_picks has. Null if there is none, or no key or limit. Private '
  'to this schema.';

revoke execute on function job_queue.free_key_slot(text, text, integer, job_queue.pick[])
  from public;
