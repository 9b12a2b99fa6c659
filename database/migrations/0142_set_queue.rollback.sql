-- Changes no job: sets the policy of a queue.

create or replace function job_queue.set_queue(
  p_queue text,
  p_policy jsonb
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_constraint text;
begin
  if jsonb_typeof(p_policy) is distinct from 'object'
    or p_policy - '{paused,concurrency_limit,key_concurrency_limit,rate_limit,rate_period,
                    max_attempts,retry_delay,retry_delay_max,max_losses,timeout,keep_succeeded,
                    keep_failed,keep_cancelled}'::text[] <> '{}'
  then
    perform job_queue.raise_invalid_argument(
      'policy', left(p_policy::text, 200),
      'Pass a JSON object with columns of queues as its keys.');
  end if;

  insert into job_queue.queues (queue)
  values (p_queue)
  on conflict (queue) do nothing;

  update job_queue.queues as queue
     set paused = coalesce(new.paused, false),
         concurrency_limit = new.concurrency_limit,
         key_concurrency_limit = new.key_concurrency_limit,
         rate_limit = new.rate_limit,
         rate_period = coalesce(new.rate_period, '1 minute'),
         max_attempts = new.max_attempts,
         retry_delay = new.retry_delay,
         retry_delay_max = new.retry_delay_max,
         max_losses = new.max_losses,
         timeout = new.timeout,
         keep_succeeded = new.keep_succeeded,
         keep_failed = new.keep_failed,
         keep_cancelled = new.keep_cancelled
    from job_queue.queues as old
   cross join lateral jsonb_populate_record(old, p_policy) as new
   where queue.queue = p_queue
     and old.queue = p_queue;
  perform job_queue.give_slots(p_queue);
exception
  when check_violation or not_null_violation or data_exception then
    get stacked diagnostics v_constraint = constraint_name;
    perform job_queue.raise_invalid_argument(
      'policy', left(p_policy::text, 200),
      format('%s: see \d job_queue.queues.', coalesce(nullif(v_constraint, ''), sqlerrm)));
end
$$;

comment on function job_queue.set_queue(text, jsonb) is
  'Changes the policy of a queue: p_policy is a JSON object (merged as in RFC 7396) whose keys are '
  'columns of the table queues; null gives a column its default again, and what is left out stays. '
  'New defaults hold for jobs that are enqueued from then on; limits and retention hold for all. '
  'Errors: JQ001 for a wrong value or an unknown key.';

revoke execute on function job_queue.set_queue(text, jsonb) from public;
