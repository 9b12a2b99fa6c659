-- Changes nothing: reads the argument of complete_jobs, fail_jobs and release_jobs.

create function job_queue.parse_runs(
  p_runs jsonb,
  p_keys text[]
)
returns job_queue.run[]
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wrong text;
begin
  if jsonb_typeof(p_runs) is distinct from 'array' then
    perform job_queue.raise_invalid_argument(
      'runs', coalesce(jsonb_typeof(p_runs), 'null'), 'Pass a JSON array of objects.');
  end if;

  select format('%s: %s', given.position - 1, left(given.run::text, 200))
    into v_wrong
    from jsonb_array_elements(p_runs) with ordinality as given (run, position)
   where jsonb_typeof(given.run) <> 'object'
      or given.run - p_keys <> '{}'
   order by given.position
   limit 1;
  if found then
    perform job_queue.raise_invalid_argument(
      'run', v_wrong, format('Pass objects with the keys %s.', array_to_string(p_keys, ', ')));
  end if;

  return array(
    select row(given.job_id, given.claim_id, given.result, given.error,
               coalesce(given.retryable, true), given.retry_in)::job_queue.run
      from jsonb_to_recordset(p_runs) as given (
        job_id uuid, claim_id bigint, result jsonb, error text, retryable boolean,
        retry_in interval));
end
$$;

comment on function job_queue.parse_runs(jsonb, text[]) is
  'The runs of which complete_jobs, fail_jobs or release_jobs was told. Private to this schema. '
  'Errors: JQ001 if the argument is no array of objects, or for a key that is not among p_keys.';

revoke execute on function job_queue.parse_runs(jsonb, text[]) from public;
