-- depends: 0135_stop_listening

-- All at once: what reads an array of new_job names its attributes by their places.

alter type job_queue.new_job add attribute trace_context jsonb;

-- Changes nothing: says what is wrong with a job that is_in_order finds wanting.

create or replace function job_queue.refuse_job(
  p_job job_queue.new_job
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  case
    when length(p_job.job_type) between 1 and 100 is not true then
      perform job_queue.raise_invalid_argument(
        'job_type', left(p_job.job_type, 100), 'Pass a name of 1 to 100 characters.');
    when pg_column_size(p_job.payload) <= 4194304 is not true then
      perform job_queue.raise_invalid_argument(
        'payload', pg_column_size(p_job.payload) || ' bytes', 'Pass JSON of at most 4 MiB.');
    when p_job.sleep_seconds between 0 and 86400 is not true then
      perform job_queue.raise_invalid_argument(
        'sleep_seconds', p_job.sleep_seconds::text,
        'Pass a whole number of seconds from 0 to 86400.');
    when length(p_job.message) > 10000 then
      perform job_queue.raise_invalid_argument(
        'message', length(p_job.message) || ' characters', 'Pass at most 10000 characters.');
    when length(p_job.queue) between 1 and 100 is not true then
      perform job_queue.raise_invalid_argument(
        'queue', left(p_job.queue, 100), 'Pass a name of 1 to 100 characters.');
    when p_job.priority between 0 and 3 is not true then
      perform job_queue.raise_invalid_argument(
        'priority', p_job.priority::text,
        'Pass 0 for what runs first, 1, 2, or 3 for what runs last.');
    when not isfinite(p_job.run_at) then
      perform job_queue.raise_invalid_argument(
        'run_at', p_job.run_at::text, 'Pass a time that comes.');
    when p_job.max_attempts < 1 then
      perform job_queue.raise_invalid_argument(
        'max_attempts', p_job.max_attempts::text,
        'Pass 1 for a job that is not retried, or more.');
    when p_job.retry_delay not between interval '0' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'retry_delay', p_job.retry_delay::text, 'Pass an interval from 0 to 1 year.');
    when p_job.retry_delay_max not between interval '0' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'retry_delay_max', p_job.retry_delay_max::text, 'Pass an interval from 0 to 1 year.');
    when p_job.max_losses < 0 then
      perform job_queue.raise_invalid_argument(
        'max_losses', p_job.max_losses::text,
        'Pass a number of workers, or 0 for a job that must not run twice.');
    when p_job.timeout not between interval '1 millisecond' and interval '1 year' then
      perform job_queue.raise_invalid_argument(
        'timeout', p_job.timeout::text, 'Pass an interval from 1 millisecond to 1 year.');
    when length(p_job.unique_key) not between 1 and 500 then
      perform job_queue.raise_invalid_argument(
        'unique_key', length(p_job.unique_key) || ' characters', 'Pass 1 to 500 characters.');
    when p_job.on_parent_failure in ('cancel', 'release') is not true then
      perform job_queue.raise_invalid_argument(
        'on_parent_failure', p_job.on_parent_failure, 'Pass cancel or release.');
    when jsonb_typeof(p_job.trace_context) <> 'object'
      or pg_column_size(p_job.trace_context) > 8192 then
      perform job_queue.raise_invalid_argument(
        'trace_context', left(p_job.trace_context::text, 100),
        'Pass a JSON object of at most 8 KiB.');
    else
      perform job_queue.raise_invalid_argument(
        'concurrency_key', length(p_job.concurrency_key) || ' characters',
        'Pass 1 to 500 characters.');
  end case;
end
$$;

comment on function job_queue.refuse_job(job_queue.new_job) is
  'Raises JQ001 for the first argument that is out of range. Private to this schema.';

revoke execute on function job_queue.refuse_job(job_queue.new_job) from public;

-- Changes nothing: reads the argument of enqueue_jobs.

create or replace function job_queue.parse_jobs(
  p_jobs jsonb
)
returns job_queue.new_job[]
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wrong text;
  v_defaults job_queue.new_job;
begin
  if jsonb_typeof(p_jobs) is distinct from 'array' then
    perform job_queue.raise_invalid_argument(
      'jobs', coalesce(jsonb_typeof(p_jobs), 'null'), 'Pass a JSON array of objects.');
  end if;

  select format('%s: %s', given.position - 1, left(given.job::text, 200))
    into v_wrong
    from jsonb_array_elements(p_jobs) with ordinality as given (job, position)
   where jsonb_typeof(given.job) <> 'object'
      or given.job - '{job_type,payload,sleep_seconds,message,queue,priority,run_at,delay,
                       max_attempts,retry_delay,retry_delay_max,max_losses,timeout,unique_key,
                       concurrency_key,depends_on,on_parent_failure,trace_context}'::text[] <> '{}'
   order by given.position
   limit 1;
  if found then
    perform job_queue.raise_invalid_argument(
      'job', v_wrong, 'Pass objects whose keys are parameters of enqueue_job without their p_.');
  end if;

  v_defaults.job_type := 'sleep';
  v_defaults.payload := '{}';
  v_defaults.sleep_seconds := 3;
  v_defaults.queue := 'default';
  v_defaults.priority := 1;
  v_defaults.on_parent_failure := 'cancel';
  return array(select given from jsonb_populate_recordset(v_defaults, p_jobs) as given);
end
$$;

comment on function job_queue.parse_jobs(jsonb) is
  'The jobs of which enqueue_jobs was told, with what was left out. Private to this schema. '
  'Errors: JQ001 if the argument is no array of objects, or for a key that is no parameter of '
  'enqueue_job.';

revoke execute on function job_queue.parse_jobs(jsonb) from public;

-- -> queued or blocked
--
-- In the order of their unique keys, so that two calls with the same keys cannot deadlock; seq,
-- taken beforehand, keeps the order of arrival.

create or replace function job_queue.add_jobs(
  p_jobs job_queue.new_job[],
  p_ids uuid[],
  p_open boolean[],
  p_detail jsonb
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = on
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_count integer;
  v_due text[];
begin
  perform job_queue.refuse_job(new)
     from unnest(p_jobs) as new
    where not job_queue.is_in_order(
            new.job_type, new.payload, new.sleep_seconds, new.message, new.queue, new.priority,
            new.run_at, new.max_attempts, new.retry_delay, new.retry_delay_max, new.max_losses,
            new.timeout, new.unique_key, new.concurrency_key, new.on_parent_failure,
            new.trace_context);

  with added as (
    insert into job_queue.jobs (
      id, status, claimable, job_type, payload, sleep_seconds, message, queue, priority, run_at,
      max_attempts, retry_delay, retry_delay_max, max_losses, timeout, unique_key, held_key,
      concurrency_key, depends_on, trace_context, seq
    )
    overriding system value
    select
      p_ids[new.position],
      case when cardinality(new.depends_on) > 0 then 'blocked' else 'queued' end,
      cardinality(new.depends_on) > 0 is not true, new.job_type, new.payload,
      new.sleep_seconds, new.message, new.queue, new.priority,
      case when new.run_at is null and new.delay is null then v_now
           else job_queue.start_time(new.run_at, new.delay) end,
      coalesce(new.max_attempts, queue.max_attempts, 1),
      coalesce(new.retry_delay, queue.retry_delay, '15 seconds'),
      coalesce(new.retry_delay_max, queue.retry_delay_max, '1 hour'),
      coalesce(new.max_losses, queue.max_losses, 3),
      coalesce(new.timeout, queue.timeout), new.unique_key, new.unique_key, new.concurrency_key,
      new.depends_on, new.trace_context, new.seq
      from (
        select given.*, nextval('job_queue.jobs_seq_seq') as seq
          from unnest(p_jobs) with ordinality as given (
            job_type, payload, sleep_seconds, message, queue, priority, run_at, delay,
            max_attempts, retry_delay, retry_delay_max, max_losses, timeout, unique_key,
            concurrency_key, depends_on, on_parent_failure, trace_context, position)
      ) as new
      left join job_queue.queues as queue on queue.queue = new.queue
     where p_open[new.position]
     order by new.queue, new.unique_key, new.position
    on conflict (queue, held_key) where held_key is not null do nothing
    returning jobs.id, jobs.status, jobs.queue, jobs.run_at
  ),
  recorded as (
    insert into job_queue.job_events (job_id, verb, to_status, detail)
    select added.id, 'enqueue', added.status, p_detail
      from added
  )
  select count(*)::integer, array_agg(added.queue) filter (
           where added.status = 'queued' and added.run_at <= clock_timestamp())
    into v_count, v_due
    from added;

  perform job_queue.wake_workers(v_due);
  return v_count;
end
$$;

comment on function job_queue.add_jobs(job_queue.new_job[], uuid[], boolean[], jsonb) is
  'Adds those of the jobs that p_open is true for, save those whose unique key is held, each '
  'under the id in its place in p_ids, and returns how many. Private to this schema. Errors: '
  'JQ001 for an argument out of range.';

revoke execute on function job_queue.add_jobs(job_queue.new_job[], uuid[], boolean[], jsonb)
  from public;

-- -> queued or blocked
--
-- The loop goes round again only for jobs whose unique key was held by one that has ended in
-- between.

create or replace function job_queue.enqueue_jobs(
  p_jobs jsonb,
  p_detail jsonb default null
)
returns table (
  id uuid,
  created boolean
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
  v_jobs job_queue.new_job[] := job_queue.parse_jobs(p_jobs);
  v_ids uuid[] := array(select job_queue.new_job_id() from generate_subscripts(v_jobs, 1));
  v_created boolean[] := array_fill(true, array[cardinality(v_jobs)]);
  v_open boolean[] := v_created;
  v_count integer := cardinality(v_jobs);
  v_job record;
begin
  loop
    v_count := v_count - job_queue.add_jobs(v_jobs, v_ids, v_open, p_detail);
    exit when v_count = 0;

    for v_job in
      select new.position, own.id is not null as is_added, holder.id as holder_id
        from unnest(v_jobs, v_open) with ordinality as new (
          job_type, payload, sleep_seconds, message, queue, priority, run_at, delay, max_attempts,
          retry_delay, retry_delay_max, max_losses, timeout, unique_key, concurrency_key,
          depends_on, on_parent_failure, trace_context, is_open, position)
        left join job_queue.jobs as own on own.id = v_ids[new.position]
        left join job_queue.jobs as holder
          on holder.queue = new.queue
         and holder.held_key = new.unique_key
       where new.is_open
    loop
      v_open[v_job.position] := not v_job.is_added and v_job.holder_id is null;
      if not v_job.is_added and v_job.holder_id is not null then
        v_ids[v_job.position] := v_job.holder_id;
        v_created[v_job.position] := false;
        v_count := v_count - 1;
      end if;
    end loop;
    exit when v_count = 0;
  end loop;

  perform job_queue.add_dependencies(new.id, new.depends_on, new.on_parent_failure)
     from unnest(v_jobs, v_ids, v_created) as new (
       job_type, payload, sleep_seconds, message, queue, priority, run_at, delay, max_attempts,
       retry_delay, retry_delay_max, max_losses, timeout, unique_key, concurrency_key,
       depends_on, on_parent_failure, trace_context, id, created)
    where new.created
      and cardinality(new.depends_on) > 0;

  return query select * from unnest(v_ids, v_created);
end
$$;

comment on function job_queue.enqueue_jobs(jsonb, jsonb) is
  'Adds many jobs, all or, if one is refused, none: p_jobs is a JSON array of objects keyed like '
  'the parameters of enqueue_job without their p_. Returns a row for each, in the same order: its '
  'id, and whether it was added; false if an unfinished job had its unique key, whose id that is '
  'then. p_detail: what job_history is to say of where they came from. Errors: JQ001 for an '
  'argument out of range, JQ002 for a parent that does not exist, class 22 for a value of the '
  'wrong type.';

revoke execute on function job_queue.enqueue_jobs(jsonb, jsonb) from public;

drop function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text, text, uuid[], text
);

-- -> queued or blocked
--
-- The loop goes round again only when the job that had the unique key has ended in between.

create function job_queue.enqueue_job(
  p_job_type text default 'sleep',
  p_payload jsonb default '{}',
  p_sleep_seconds integer default 3,
  p_message text default null,
  p_queue text default 'default',
  p_priority integer default 1,
  p_run_at timestamptz default null,
  p_delay interval default null,
  p_max_attempts integer default null,
  p_retry_delay interval default null,
  p_retry_delay_max interval default null,
  p_max_losses integer default null,
  p_timeout interval default null,
  p_unique_key text default null,
  p_concurrency_key text default null,
  p_depends_on uuid[] default null,
  p_on_parent_failure text default 'cancel',
  p_trace_context jsonb default null
)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_status text := case when cardinality(p_depends_on) > 0 then 'blocked' else 'queued' end;
  v_policy record;
  v_job_id uuid;
begin
  if not job_queue.is_in_order(
    p_job_type, p_payload, p_sleep_seconds, p_message, p_queue, p_priority, p_run_at,
    p_max_attempts, p_retry_delay, p_retry_delay_max, p_max_losses, p_timeout, p_unique_key,
    p_concurrency_key, p_on_parent_failure, p_trace_context
  ) then
    perform job_queue.refuse_job(row(
      p_job_type, p_payload, p_sleep_seconds, p_message, p_queue, p_priority, p_run_at, p_delay,
      p_max_attempts, p_retry_delay, p_retry_delay_max, p_max_losses, p_timeout, p_unique_key,
      p_concurrency_key, p_depends_on, p_on_parent_failure, p_trace_context)::job_queue.new_job);
  end if;
  if p_delay is not null then
    p_run_at := job_queue.start_time(p_run_at, p_delay);
  end if;
  select * into v_policy from job_queue.queues as queue where queue.queue = p_queue;

  loop
    insert into job_queue.jobs (
      status, claimable, job_type, payload, sleep_seconds, message, queue, priority, run_at,
      max_attempts, retry_delay, retry_delay_max, max_losses, timeout, unique_key, held_key,
      concurrency_key, depends_on, trace_context
    )
    values (
      v_status, v_status = 'queued', p_job_type, p_payload, p_sleep_seconds, p_message, p_queue,
      p_priority, coalesce(p_run_at, clock_timestamp()),
      coalesce(p_max_attempts, v_policy.max_attempts, 1),
      coalesce(p_retry_delay, v_policy.retry_delay, '15 seconds'),
      coalesce(p_retry_delay_max, v_policy.retry_delay_max, '1 hour'),
      coalesce(p_max_losses, v_policy.max_losses, 3),
      coalesce(p_timeout, v_policy.timeout), p_unique_key, p_unique_key, p_concurrency_key,
      p_depends_on, p_trace_context
    )
    on conflict (queue, held_key) where held_key is not null do nothing
    returning jobs.id into v_job_id;
    exit when found;

    select job.id into v_job_id
      from job_queue.jobs as job
     where job.queue = p_queue and job.held_key = p_unique_key;
    if found then
      raise notice 'job % has the unique key % already', v_job_id, p_unique_key;
      return v_job_id;
    end if;
  end loop;

  insert into job_queue.job_events (job_id, verb, to_status)
  values (v_job_id, 'enqueue', v_status);
  if v_status = 'blocked' then
    perform job_queue.add_dependencies(v_job_id, p_depends_on, p_on_parent_failure);
  elsif coalesce(p_run_at, '-infinity') <= clock_timestamp()
    and job_queue.has_sleepers('') then
    perform job_queue.wake_workers(array[p_queue]);
  end if;
  return v_job_id;
end
$$;

comment on function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text, text, uuid[], text, jsonb
) is
  'Adds a job of p_job_type with the input p_payload, and returns its id. The job exists once the '
  'caller''s transaction commits, and never did if it rolls back. p_sleep_seconds (0 to 86400) and '
  'p_message (at most 10000 characters) are the input of the type sleep. p_queue: the lane it '
  'waits in. p_priority: 0 runs first, 3 last. p_run_at or p_delay: not before then. '
  'p_max_attempts: how often it may be tried if it fails, after a random wait of up to '
  'p_retry_delay, doubled each time, at most p_retry_delay_max. p_max_losses: how many workers it '
  'may take down before it fails; 0 if it must not run twice. p_timeout: how long an attempt may '
  'run. Where one of these is null the queue''s default holds. p_unique_key: if an unfinished job '
  'in this queue has this key, its id is returned, with a notice, and no job is added. '
  'p_concurrency_key: what the queue''s key_concurrency_limit counts by. p_depends_on: the job is '
  'blocked until these have succeeded; if one fails or is cancelled, p_on_parent_failure says '
  'whether to cancel the job or to release it all the same. p_trace_context: the W3C trace context '
  'of whoever enqueues, a JSON object of at most 8 KiB, for the worker that claims the job. If the '
  'job may run at once, workers that sleep are woken when the transaction commits: with a NOTIFY, '
  'after which it cannot be prepared (PREPARE TRANSACTION). Errors: JQ001 for an argument out of '
  'range, JQ002 for a parent that does not exist.';

revoke execute on function job_queue.enqueue_job(
  text, jsonb, integer, text, text, integer, timestamptz, interval, integer, interval, interval,
  integer, interval, text, text, uuid[], text, jsonb
) from public;

select job_queue.grant_roles();
