-- depends: 0216_validate_that_jobs_fit

-- Changes nothing: whether job_transitions has such a change.
--
-- It repeats what the table has, and a test holds one against the other. Like is_consistent it
-- looks nothing up, and is a function because Postgres reads the condition of a trigger anew for
-- each statement.

create function job_queue.may_become(
  p_from text,
  p_to text
)
returns boolean
language plpgsql
immutable
as $$
begin
  return p_from = p_to or p_from || ' -> ' || p_to = any (
    '{queued -> running, running -> succeeded, running -> failed, running -> queued,
      running -> cancelled, queued -> cancelled, failed -> queued, cancelled -> queued,
      blocked -> queued, blocked -> cancelled}'::text[]);
end
$$;

comment on function job_queue.may_become(text, text) is
  'Whether a job may come from one status to the other. Private to this schema.';

revoke execute on function job_queue.may_become(text, text) from public;
