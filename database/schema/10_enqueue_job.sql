-- -> queued

create function job_queue.enqueue_job(
  p_sleep_seconds integer default 3,
  p_message text default null,
  p_max_losses integer default 3
)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job_id uuid;
begin
  if p_sleep_seconds is null or p_sleep_seconds not between 0 and 86400 then
    raise exception using
      errcode = 'JQ001',
      message = format('invalid sleep_seconds: %s', coalesce(p_sleep_seconds::text, 'null')),
      hint = 'Pass a whole number of seconds from 0 to 86400.';
  end if;
  if length(p_message) > 10000 then
    raise exception using
      errcode = 'JQ001',
      message = format('invalid message: %s characters', length(p_message)),
      hint = 'Pass at most 10000 characters.';
  end if;
  if p_max_losses is null or p_max_losses < 0 then
    raise exception using
      errcode = 'JQ001',
      message = format('invalid max_losses: %s', coalesce(p_max_losses::text, 'null')),
      hint = 'Pass a number of workers, or 0 for a job that must never run twice.';
  end if;

  insert into job_queue.jobs (sleep_seconds, message, max_losses)
  values (p_sleep_seconds, p_message, p_max_losses)
  returning jobs.id into v_job_id;

  insert into job_queue.job_events (job_id, verb, to_status)
  values (v_job_id, 'enqueue', 'queued');
  return v_job_id;
end
$$;

comment on function job_queue.enqueue_job(integer, text, integer) is
  'Adds a job that sleeps for p_sleep_seconds (0 to 86400) and echoes p_message (at most 10000 '
  'characters). If the worker that runs it dies it runs again, until it has been lost p_max_losses '
  'times. Returns its id. The job exists once the caller''s transaction commits, and never did if '
  'it rolls back. Errors: JQ001 for an argument out of range.';

revoke execute on function job_queue.enqueue_job(integer, text, integer) from public;
