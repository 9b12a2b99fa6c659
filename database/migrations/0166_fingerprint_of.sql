-- depends: 0162_list_dead_jobs

-- Changes nothing: what enqueue_once knows a request by.
--
-- A repetition comes with a trace of its own, which does not make it another request.

create function job_queue.fingerprint_of(
  p_jobs jsonb
)
returns bytea
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select sha256(convert_to(coalesce(jsonb_agg(
           case jsonb_typeof(given.job) when 'object' then given.job - 'trace_context'
                else given.job end
           order by given.position)::text, ''), 'UTF8'))
    from jsonb_array_elements(case jsonb_typeof(p_jobs) when 'array' then p_jobs end)
      with ordinality as given (job, position)
$$;

comment on function job_queue.fingerprint_of(jsonb) is
  'The SHA-256 of the jobs that enqueue_once is told of, without their trace_context. Private to '
  'this schema.';

revoke execute on function job_queue.fingerprint_of(jsonb) from public;
