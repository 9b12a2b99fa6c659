-- Changes no job: lets the group roles execute the functions that are meant for them.
--
-- Roles belong to the whole server, not to this database. One that is missing is made if the caller
-- may make roles; otherwise a notice says so, and the caller calls this again once somebody has
-- made it. The one function that runs as its caller: whoever calls it must own the functions.

create or replace function job_queue.grant_roles()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reading text[] := '{get_job,list_jobs,job_history,explain_job,list_dead_jobs,ended_jobs,
    list_events,settled_events,authorize}'::text[];
  v_grants jsonb := jsonb_build_object(
    'job_queue_client', v_reading || '{enqueue_job,enqueue_jobs,enqueue_once,
      cancel_job}'::text[],
    'job_queue_worker', v_reading || '{enqueue_job,enqueue_jobs,enqueue_once,claim_next_job,
      claim_jobs,start_listening,stop_listening,heartbeat,report_progress,
      complete_job,complete_jobs,complete_and_claim,fail_job,fail_jobs,snooze_job,release_job,
      release_jobs,run_maintenance}'::text[],
    'job_queue_operator', v_reading || '{cancel_job,cancel_jobs,retry_job,retry_jobs,set_queue,
      pause_queue,resume_queue,list_queues,set_schedule,pause_schedule,resume_schedule,
      delete_schedule,list_schedules,next_tick,create_api_key,revoke_api_key,list_api_keys,
      count_events,run_maintenance,time_out_jobs,reclaim_expired_claims,fire_schedules,prune_jobs,
      check_health,count_jobs}'::text[]);
  v_role text;
  v_functions text;
begin
  for v_role in select jsonb_object_keys(v_grants) loop
    if to_regrole(v_role) is null then
      if not (select rolcreaterole or rolsuper from pg_roles where rolname = current_user) then
        raise notice 'role % does not exist, and % may not make it', v_role, current_user;
        continue;
      end if;
      execute format('create role %I', v_role);
    end if;

    select string_agg(function.oid::regprocedure::text, ', ')
      into v_functions
      from pg_proc as function
     where function.pronamespace = 'job_queue'::regnamespace
       and v_grants -> v_role ? function.proname;
    execute format('grant usage on schema job_queue to %I', v_role);
    execute format('grant execute on function %s to %I', v_functions, v_role);
  end loop;
  if to_regrole('job_queue_operator') is not null then
    grant select on job_queue.queue_statistics, job_queue.workers, job_queue.health
      to job_queue_operator;
  end if;
end
$$;

comment on function job_queue.grant_roles() is
  'Makes the group roles job_queue_client (enqueues, reads, cancels), job_queue_worker (claims, '
  'ends runs and enqueues) and job_queue_operator (retries, sets queues and schedules, sees the '
  'views) if they are missing and the caller may, and grants them the functions that are meant '
  'for them. '
  'Called by the migration; to be called again, by the schema''s owner, if the roles come later.';

revoke execute on function job_queue.grant_roles() from public;
