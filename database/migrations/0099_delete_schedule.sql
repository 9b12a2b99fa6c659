-- depends: 0098_resume_schedule

-- Changes no job.

create function job_queue.delete_schedule(
  p_schedule text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from job_queue.schedules as schedule
   where schedule.schedule = p_schedule;
  if not found then
    perform job_queue.raise_no_schedule(p_schedule);
  end if;
end
$$;

comment on function job_queue.delete_schedule(text) is
  'Ends a schedule. Its jobs stay. Errors: JQ002 no such schedule.';

revoke execute on function job_queue.delete_schedule(text) from public;
