-- Changes nothing: reads the argument of enqueue_jobs.

create function job_queue.parse_jobs(
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
