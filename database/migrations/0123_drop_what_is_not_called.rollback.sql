set local lock_timeout = '5s';

alter table job_queue.jobs
  drop constraint jobs_have_failed_at_while_failed;

-- Changes nothing: refuses a job that could not be stored or could not run. The table has no CHECKs
-- for this: 02_jobs.sql says why.

create function job_queue.check_job(
  p_job_type text,
  p_payload jsonb,
  p_sleep_seconds integer,
  p_message text,
  p_queue text,
  p_priority integer,
  p_run_at timestamptz,
  p_delay interval,
  p_max_attempts integer,
  p_retry_delay interval,
  p_retry_delay_max interval,
  p_max_losses integer,
  p_timeout interval,
  p_unique_key text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  case
    when p_job_type is null or length(p_job_type) not between 1 and 100 then
      perform job_queue.raise_invalid_argument(
        'job_type', left(p_job_type, 100), 'Pass a name of 1 to 100 characters.');
    when p_payload is null or pg_column_size(p_payload) > 4194304 then
      perform job_queue.raise_invalid_argument(
        'payload', pg_column_size(p_payload) || ' bytes', 'Pass JSON of at most 4 MiB.');
    when p_sleep_seconds is null or p_sleep_seconds not between 0 and 86400 then
      perform job_queue.raise_invalid_argument(
        'sleep_seconds', p_sleep_seconds::text, 'Pass a whole number of seconds from 0 to 86400.');
    when length(p_message) > 10000 then
      perform job_queue.raise_invalid_argument(
        'message', length(p_message) || ' characters', 'Pass at most 10000 characters.');
    when p_queue is null or length(p_queue) not between 1 and 100 then
      perform job_queue.raise_invalid_argument(
        'queue', left(p_queue, 100), 'Pass a name of 1 to 100 characters.');
    when p_priority is null or p_priority not between 0 and 3 then
      perform job_queue.raise_invalid_argument(
        'priority', p_priority::text, 'Pass 0 for what runs first, 1, 2, or 3 for what runs last.');
    when p_run_at is not null and p_delay is not null then
      perform job_queue.raise_invalid_argument(
        'run_at and delay', p_run_at || ' and ' || p_delay, 'Pass one of the two.');
    when not isfinite(p_run_at) then
      perform job_queue.raise_invalid_argument(
        'run_at', p_run_at::text, 'Pass a time that comes.');
    when p_delay not between interval '0' and interval '10 years' then
      perform job_queue.raise_invalid_argument(
        'delay', p_delay::text, 'Pass an interval from 0 to 10 years.');
    when p_max_attempts is null or p_max_attempts < 1 then
      perform job_queue.raise_invalid_argument(
        'max_attempts', p_max_attempts::text, 'Pass 1 for a job that is not retried, or more.');
    when p_retry_delay is null or p_retry_delay not between interval '0' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'retry_delay', p_retry_delay::text, 'Pass an interval from 0 to 1 year.');
    when p_retry_delay_max is null
      or p_retry_delay_max not between interval '0' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'retry_delay_max', p_retry_delay_max::text, 'Pass an interval from 0 to 1 year.');
    when p_max_losses is null or p_max_losses < 0 then
      perform job_queue.raise_invalid_argument(
        'max_losses', p_max_losses::text,
        'Pass a number of workers, or 0 for a job that must not run twice.');
    when p_timeout not between interval '1 millisecond' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'timeout', p_timeout::text, 'Pass an interval from 1 millisecond to 1 year.');
    when length(p_unique_key) not between 1 and 500 then
      perform job_queue.raise_invalid_argument(
        'unique_key', length(p_unique_key) || ' characters', 'Pass 1 to 500 characters.');
    else
      return;
  end case;
end
$$;

comment on function job_queue.check_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text
) is
  'Raises JQ001 if one of these arguments of enqueue_job is out of range. Private to this schema.';

revoke execute on function job_queue.check_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text
) from public;

-- The fence. Changes no job: deletes the claim, or says why there is none to delete.
--
-- Each verb that ends a run calls it first. Of two calls with one claim, the second waits for the
-- first one's transaction at the claim's row and then finds it gone.

create function job_queue.end_claim(
  p_job_id uuid,
  p_claim_id bigint
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_status text;
begin
  delete from job_queue.claims as claim
   where claim.claim_id = p_claim_id
     and claim.job_id = p_job_id;
  if found then
    return;
  end if;

  v_status := job_queue.status_of(p_job_id);
  if v_status <> 'running' then
    raise exception using
      errcode = 'JQ003',
      message = format('job %s is %s, not running', p_job_id, v_status),
      hint = 'This run of it is over: discard its result. get_job shows the outcome.';
  else
    raise exception using
      errcode = 'JQ004',
      message = format(
        'claim %s does not hold job %s', coalesce(p_claim_id::text, 'null'), p_job_id),
      hint = 'The job runs under another claim: stop, and discard the result. A worker passes the '
             'claim_id that claim_next_job gave it.';
  end if;
end
$$;

comment on function job_queue.end_claim(uuid, bigint) is
  'Ends the claim p_claim_id on the job p_job_id. Private to this schema: a caller must change the '
  'job''s status in the same transaction. Errors: JQ002 no such job, JQ003 it is not running, '
  'JQ004 another claim holds it.';

revoke execute on function job_queue.end_claim(uuid, bigint) from public;

-- running -> queued or cancelled

create function job_queue.hand_back(
  p_job_id uuid,
  p_claim_id bigint,
  p_verb text,
  p_delay interval
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_status text;
begin
  perform job_queue.end_claim(p_job_id, p_claim_id);

  update job_queue.jobs as job
     set status = case when job.cancel_requested then 'cancelled' else 'queued' end,
         claimable = not job.cancel_requested,
         attempts = job.attempts - 1,
         held_key = case when not job.cancel_requested then job.held_key end,
         run_at = coalesce(clock_timestamp() + p_delay, job.run_at),
         updated_at = clock_timestamp()
   where job.id = p_job_id
  returning job.status into v_status;

  insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id)
  values (p_job_id, p_verb, 'running', v_status, p_claim_id);
end
$$;

comment on function job_queue.hand_back(uuid, bigint, text, interval) is
  'What snooze_job and release_job share. Private to this schema.';

revoke execute on function job_queue.hand_back(uuid, bigint, text, interval) from public;

-- Changes nothing: finds and locks the job that claim_next_job is about to take.

create function job_queue.lock_next_job(
  p_queues text[],
  p_job_types text[]
)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_queue text;
  v_job_id uuid;
begin
  if coalesce(cardinality(p_queues), 0) = 0 then
    perform job_queue.raise_invalid_argument(
      'queues', p_queues::text, 'Pass an array of at least one name.');
  end if;

  foreach v_queue in array p_queues loop
    for v_priority in 0..3 loop
      select job.id
        into v_job_id
        from job_queue.jobs as job
       where job.claimable
         and job.queue = v_queue
         and job.priority = v_priority
         and job.run_at <= v_now
         and (p_job_types is null or job.job_type = any (p_job_types))
       order by job.run_at, job.seq
       limit 1
         for update skip locked;
      if found then
        return v_job_id;
      end if;
    end loop;
  end loop;
  return null;
end
$$;

comment on function job_queue.lock_next_job(text[], text[]) is
  'Returns the id of the next job, its row locked, or null if nothing waits. Private to this '
  'schema.';

revoke execute on function job_queue.lock_next_job(text[], text[]) from public;

-- Changes nothing but what time_out_jobs and reclaim_expired_claims change, once a second in the
-- whole system.
--
-- Where that is slow, it is done less often, so that it takes a twentieth of the time at most. A
-- due time more than a minute ahead was set by a clock that has since been put back.

create function job_queue.reclaim_if_due()
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_due bigint := pg_sequence_last_value('job_queue.reclaim_due');
  v_start bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  v_end bigint;
begin
  if v_due between v_start and v_start + 60000000 then
    return;
  end if;

  perform setval('job_queue.reclaim_due', v_start + 1000000);
  perform job_queue.time_out_jobs();
  perform job_queue.reclaim_expired_claims();
  v_end := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  perform setval(
    'job_queue.reclaim_due', v_end + least(greatest(20 * (v_end - v_start), 1000000), 60000000));
end
$$;

comment on function job_queue.reclaim_if_due() is
  'Calls time_out_jobs and reclaim_expired_claims if nobody has within the last second. Private to '
  'this schema.';

revoke execute on function job_queue.reclaim_if_due() from public;
