-- -> queued or blocked
--
-- The key's row is inserted first, so that a twin waits for it. If the first one commits, the twin
-- answers what it answered; if it rolls back, its key and its jobs are both gone and the twin adds
-- them. An expired key is taken over in place. The row that stands in the way is locked, even where
-- it is not changed, so nobody deletes it before its outcome is read.

create function job_queue.enqueue_once(
  p_client text,
  p_idempotency_key text,
  p_jobs jsonb
)
returns table (
  id uuid,
  created boolean,
  status text,
  sleep_seconds integer,
  message text,
  created_at timestamptz,
  replayed boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_client text := coalesce(p_client, '');
  v_fingerprint bytea := job_queue.fingerprint_of(p_jobs);
  v_is_new boolean;
  v_ids uuid[];
  v_created boolean[];
  v_first record;
begin
  if length(p_idempotency_key) between 1 and 255 is not true then
    perform job_queue.raise_invalid_argument(
      'idempotency_key', left(p_idempotency_key, 300), 'Pass 1 to 255 characters.');
  end if;

  insert into job_queue.idempotency_keys as known (client, idempotency_key, fingerprint)
  values (v_client, p_idempotency_key, v_fingerprint)
  on conflict on constraint idempotency_keys_pkey do update
     set fingerprint = excluded.fingerprint,
         created_at = excluded.created_at
   where known.created_at <= excluded.created_at - interval '24 hours';
  v_is_new := found;
  if v_is_new then
    select array_agg(added.id order by added.position),
           array_agg(added.created order by added.position)
      into v_ids, v_created
      from job_queue.enqueue_jobs(p_jobs) with ordinality as added (id, created, position);
    update job_queue.idempotency_keys as known
       set outcome = (
         select jsonb_agg(to_jsonb(described) - 'position' order by described.position)
           from (
             select job.id, added.created, job.status, job.sleep_seconds, job.message,
                    job.created_at, added.position
               from unnest(v_ids, v_created) with ordinality as added (id, created, position)
               join job_queue.jobs as job on job.id = added.id
           ) as described)
     where known.client = v_client
       and known.idempotency_key = p_idempotency_key;
  end if;

  select known.fingerprint, known.outcome
    into v_first
    from job_queue.idempotency_keys as known
   where known.client = v_client
     and known.idempotency_key = p_idempotency_key;
  if v_first.fingerprint <> v_fingerprint then
    raise exception using
      errcode = 'JQ011',
      message = format('idempotency key %s was used for other jobs', p_idempotency_key),
      hint = 'Use a new key for each request, and the same one only to repeat it.';
  end if;
  return query
    select job.id, job.created, job.status, job.sleep_seconds, job.message, job.created_at,
           not v_is_new
      from jsonb_to_recordset(v_first.outcome) as job (
        id uuid, created boolean, status text, sleep_seconds integer, message text,
        created_at timestamptz);
end
$$;

comment on function job_queue.enqueue_once(text, text, jsonb) is
  'What enqueue_jobs does, once: whoever calls it again within 24 hours, as the same client and '
  'with the same key and jobs (but for their trace_context), gets the first answer once more, with '
  'replayed, and as the jobs were then, whatever has become of them. p_client: whose key it is; '
  'null: nobody''s in particular. Errors: those of enqueue_jobs; JQ001 for a key that is not 1 to '
  '255 characters long; JQ011 if the key was used for other jobs.';

revoke execute on function job_queue.enqueue_once(text, text, jsonb) from public;
