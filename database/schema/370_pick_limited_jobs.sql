-- Changes no status: pick_front for a queue that has a limit.
--
-- A job whose concurrency key is at its limit is set aside, with those like it at the front, and
-- the queue is looked at again: no key can stand in the way of another. That happens 50 times at
-- most, so that no claim takes longer for a million of them than for some thousands; the workers
-- that sleep are woken, and go on from there.

create function job_queue.pick_limited_jobs(
  p_queue text,
  p_job_types text[],
  p_limit integer
)
returns job_queue.pick[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_policy record;
  v_wanted integer;
  v_queue_slots integer[];
  v_picks job_queue.pick[] := array[]::job_queue.pick[];
  v_mine uuid[] := array[]::uuid[];
  v_full uuid[];
  v_pick job_queue.pick;
  v_looks integer := 0;
begin
  select * into v_policy from job_queue.queues as queue where queue.queue = p_queue;
  v_wanted := least(p_limit, job_queue.spend_tokens(
    v_policy.queue_id, v_policy.rate_limit, v_policy.rate_period, 0));
  if v_policy.concurrency_limit is not null then
    v_queue_slots := job_queue.free_slots(
      p_queue, null, v_policy.concurrency_limit,
      job_queue.count_waiting(p_queue, p_job_types, v_wanted));
    v_wanted := cardinality(v_queue_slots);
  end if;

  loop
    v_full := array[]::uuid[];
    foreach v_pick in array job_queue.pick_front(
      p_queue, p_job_types, v_wanted, v_policy.key_concurrency_limit is not null)
    loop
      exit when cardinality(v_picks) = v_wanted;
      continue when v_pick.job_id = any (v_mine);
      v_pick.queue := p_queue;
      v_pick.queue_slot := v_queue_slots[cardinality(v_picks) + 1];
      v_pick.key_slot := job_queue.free_key_slot(
        p_queue, v_pick.concurrency_key, v_policy.key_concurrency_limit, v_picks);
      if v_pick.concurrency_key is not null and v_pick.key_slot is null then
        v_full := v_full || v_pick.job_id;
      else
        v_picks := v_picks || v_pick;
      end if;
    end loop;
    exit when v_full = '{}';
    v_mine := array(select pick.job_id from unnest(v_picks) as pick);
    perform job_queue.set_jobs_aside(p_queue, v_full, v_mine);
    v_looks := v_looks + 1;
    if v_looks = 50 then
      perform job_queue.wake_workers(array[p_queue]);
      exit;
    end if;
  end loop;

  perform job_queue.spend_tokens(
    v_policy.queue_id, v_policy.rate_limit, v_policy.rate_period, cardinality(v_picks));
  return v_picks;
end
$$;

comment on function job_queue.pick_limited_jobs(text, text[], integer) is
  'What pick_front returns, within the limits of the queue. Private to this schema.';

revoke execute on function job_queue.pick_limited_jobs(text, text[], integer) from public;
