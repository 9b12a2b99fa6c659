-- Changes nothing.
--
-- Steps from one queue to the next as waiting_types does from type to type.

create function job_queue.waiting_queues()
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
  v_queues text[] := array[]::text[];
  v_queue text := '';
  v_marked text;
begin
  loop
    select min(known.queue) into v_marked
      from job_queue.marks as known
     where known.queue > v_queue
       and known.is_set;
    if v_marked is null then
      v_queue := (
        select job.queue
          from job_queue.jobs as job
         where job.claimable
           and job.queue > v_queue
         order by job.queue
         limit 1);
    else
      v_queue := coalesce((
        select job.queue
          from job_queue.jobs as job
         where job.claimable
           and job.queue > v_queue
           and job.queue < v_marked
         order by job.queue
         limit 1), v_marked);
    end if;
    exit when v_queue is null;
    v_queues := v_queues || v_queue;
  end loop;
  return v_queues;
end
$$;

comment on function job_queue.waiting_queues() is
  'The queues in which jobs wait, and perhaps some in which none does. Private to this schema.';

revoke execute on function job_queue.waiting_queues() from public;
