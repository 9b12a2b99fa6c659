-- depends: 0220_claim_jobs

-- Changes nothing: decides what becomes of a job when a run of it ends.
--
-- Inlined like is_in_order, into the query that ends many runs: a call for each would take 7 µs.

create or replace function job_queue.status_after(
  p_verb text,
  p_cancel_requested boolean,
  p_retryable boolean,
  p_attempts integer,
  p_max_attempts integer,
  p_losses integer,
  p_max_losses integer
)
returns text
language sql
immutable
as $$
  select case
    when p_verb = 'complete' then 'succeeded'
    when p_cancel_requested then 'cancelled'
    when p_verb in ('snooze', 'release') then 'queued'
    when p_verb = 'reclaim' and p_losses + 1 < p_max_losses then 'queued'
    when p_verb in ('fail', 'time_out') and p_retryable and p_attempts < p_max_attempts
    then 'queued'
    else 'failed'
  end
$$;

comment on function job_queue.status_after(
  text, boolean, boolean, integer, integer, integer, integer
) is
  'The status of a job whose run the verb has ended: cancelled if that was asked for, and queued '
  'while there are attempts left or, of a lost run, losses. Private to this schema.';

revoke execute on function job_queue.status_after(
  text, boolean, boolean, integer, integer, integer, integer
) from public;
