-- Changes nothing.
--
-- Steps from one type to the next in the index. A lane that has a mark may begin with a long row of
-- dead entries, so the steps go round it: what has a mark is named, whether a job waits there or
-- not, and only what lies between is looked for.

create function job_queue.waiting_types(
  p_queue text
)
returns text[]
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_types text[] := array[]::text[];
  v_type text := '';
  v_marked text;
begin
  loop
    select min(known.job_type) into v_marked
      from job_queue.marks as known
     where known.queue = p_queue
       and known.job_type > v_type
       and known.is_set;
    if v_marked is null then
      v_type := (
        select job.job_type
          from job_queue.jobs as job
         where job.claimable
           and job.queue = p_queue
           and job.job_type > v_type
         order by job.job_type
         limit 1);
    else
      v_type := coalesce((
        select job.job_type
          from job_queue.jobs as job
         where job.claimable
           and job.queue = p_queue
           and job.job_type > v_type
           and job.job_type < v_marked
         order by job.job_type
         limit 1), v_marked);
    end if;
    exit when v_type is null;
    v_types := v_types || v_type;
  end loop;
  return v_types;
end
$$;

comment on function job_queue.waiting_types(text) is
  'The types of the jobs that wait in the queue, and perhaps some of which none does. Private to '
  'this schema.';

revoke execute on function job_queue.waiting_types(text) from public;
