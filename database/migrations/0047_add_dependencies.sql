-- depends: 0046_start_time

-- blocked -> queued or cancelled
--
-- Only what has not succeeded yet is noted. What succeeds, fails or is cancelled in between is
-- found by settle_dependencies here or, if not yet committed, by the recovery.

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
  if p_job_id = any (p_parent_ids) then
    perform job_queue.raise_invalid_argument(
      'depends_on', p_job_id::text, 'A job cannot wait for itself.');
  end if;

  insert into job_queue.job_dependencies (job_id, parent_id, on_parent_failure)
  select distinct p_job_id, parent.id, p_on_parent_failure
    from unnest(p_parent_ids) as parent (id)
   where job_queue.status_of(parent.id) <> 'succeeded';

  perform job_queue.settle_dependencies(p_parent_ids);
  perform job_queue.unblock_jobs(array[p_job_id]);
end
$$;

comment on function job_queue.add_dependencies(uuid, uuid[], text) is
  'Makes a new, blocked job wait for its parents, as far as it must. They exist before it does, '
  'so there can be no cycle. Private to this schema. Errors: JQ001 for a job that is its own '
  'parent, JQ002 for a parent that does not exist.';

revoke execute on function job_queue.add_dependencies(uuid, uuid[], text) from public;
