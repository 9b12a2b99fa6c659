-- Changes nothing: refuses a change of status that job_transitions does not list.

create function job_queue.refuse_transition()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'JQ005',
    message = format('job %s cannot change from %s to %s', old.id, old.status, new.status),
    hint = 'Leave the status to the functions; job_transitions lists what they may do.';
end
$$;

comment on function job_queue.refuse_transition() is
  'Raises JQ005. The trigger calls it for an update that job_transitions does not allow.';

revoke execute on function job_queue.refuse_transition() from public;

create trigger jobs_change_status_as_job_transitions_says
  before update of status on job_queue.jobs
  for each row
  when (not job_queue.may_become(old.status, new.status))
  execute function job_queue.refuse_transition();

comment on trigger jobs_change_status_as_job_transitions_says on job_queue.jobs is
  'Refuses a change of status that job_transitions does not list.';
