-- depends: 0041_types

-- Changes no job: makes the sequence that is the clock of a queue's rate limit, and drops it.

create function job_queue.start_rate_clock()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    execute format(
      'create sequence job_queue.rate_clock_%s minvalue 0 start 0', new.queue_id);
    return new;
  end if;
  execute format('drop sequence job_queue.rate_clock_%s', old.queue_id);
  return old;
end
$$;

comment on function job_queue.start_rate_clock() is
  'Makes and drops job_queue.rate_clock_<queue_id>, whose value is the time up to which the '
  'queue''s rate limit is used: microseconds since 1970.';

revoke execute on function job_queue.start_rate_clock() from public;

create trigger queues_have_a_rate_clock
  after insert or delete on job_queue.queues
  for each row
  execute function job_queue.start_rate_clock();

comment on trigger queues_have_a_rate_clock on job_queue.queues is
  'Makes the sequence that is the clock of the queue''s rate limit, and drops it.';
