-- depends: 0044_start_time

-- Changes no status: notes what a new job, which is blocked, waits for.

create function job_queue.add_dependencies(
  p_job_id uuid,
  p_parent_ids uuid[],
  p_on_parent_failure text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  if p_on_parent_failure in ('cancel', 'release') is not true then
    perform job_queue.raise_invalid_argument(
      'on_parent_failure', p_on_parent_failure, 'Pass cancel or release.');
  end if;
  if p_job_id = any (p_parent_ids) then
    perform job_queue.raise_invalid_argument(
      'depends_on', p_job_id::text, 'A job cannot wait for itself.');
  end if;

  perform job_queue.status_of(parent.id)
     from unnest(p_parent_ids) as parent (id);

  insert into job_queue.job_dependencies (job_id, parent_id, on_parent_failure)
  select distinct p_job_id, parent.id, p_on_parent_failure
    from unnest(p_parent_ids) as parent (id);
end
$$;

comment on function job_queue.add_dependencies(uuid, uuid[], text) is
  'Makes a blocked job wait for its parents. They exist before it does, so there can be no cycle. '
  'Private to this schema. Errors: JQ001 for a wrong policy, JQ002 for a parent that does not '
  'exist.';

revoke execute on function job_queue.add_dependencies(uuid, uuid[], text) from public;
