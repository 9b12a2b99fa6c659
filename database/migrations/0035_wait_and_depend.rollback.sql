-- A job that only the newer version knows how to wait is given up or let go.

set local lock_timeout = '5s';

update job_queue.jobs
   set status = 'cancelled',
       held_key = null
 where status = 'blocked';

update job_queue.jobs
   set waits_for_key = false,
       claimable = true
 where waits_for_key;

drop trigger jobs_change_status_as_job_transitions_says on job_queue.jobs;

create trigger jobs_change_status_as_job_transitions_says
  before update of status on job_queue.jobs
  for each row
  when (
    old.status <> new.status
    and old.status || ' -> ' || new.status <> all (
      '{queued -> running, running -> succeeded, running -> failed, running -> queued,
        running -> cancelled, queued -> cancelled, failed -> queued, cancelled -> queued}'::text[]
    )
  )
  execute function job_queue.refuse_transition();

comment on trigger jobs_change_status_as_job_transitions_says on job_queue.jobs is
  'Refuses a change of status that job_transitions does not list.';

delete from job_queue.job_transitions
 where from_status = 'blocked'
    or to_status = 'blocked'
    or verb = 'time_out';

alter table job_queue.jobs
  alter column id set default (
      overlay(
        lpad(to_hex((extract(epoch from clock_timestamp()) * 4096000)::bigint), 15, '0')
        placing '70008' from 13 for 0
      ) || substr(gen_random_uuid()::text, 25)
    )::uuid,
  drop column concurrency_key,
  drop column waits_for_key,
  drop column failed_at,
  drop column depends_on,
  drop constraint jobs_status_is_known,
  add constraint jobs_status_is_known
    check (status in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  drop constraint if exists jobs_are_claimable_while_queued,
  add constraint jobs_are_claimable_while_queued
    check (claimable = (status = 'queued'));

comment on table job_queue.jobs is
  'One row for each job, from enqueue_job on and for good. Written by the functions of this schema '
  'only.';
comment on column job_queue.jobs.status is
  'queued, running, succeeded, failed or cancelled.';
comment on column job_queue.jobs.unique_key is
  'At most one job with this key in its queue is queued or running at any time.';
comment on column job_queue.jobs.held_key is
  'unique_key while the job is queued or running, else null: what jobs_held_key_idx keeps unique. '
  'A job without a key then leaves that index alone when it ends.';
