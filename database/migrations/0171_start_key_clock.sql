-- depends: 0170_api_keys

-- Changes no job: makes the sequence that is the clock of an API key's rate limit, and drops it.

create function job_queue.start_key_clock()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if old.rate_step is not null then
    execute format('drop sequence job_queue.%I', 'key_clock_' || old.key_id);
  end if;
  if new.rate_step is not null then
    execute format(
      'create sequence job_queue.%I increment %s minvalue 0 start 0',
      'key_clock_' || new.key_id, new.rate_step);
  end if;
  return null;
end
$$;

comment on function job_queue.start_key_clock() is
  'Makes and drops job_queue.key_clock_<key_id>, whose value is the time up to which the key''s '
  'rate limit is used: microseconds since 1970.';

revoke execute on function job_queue.start_key_clock() from public;

create trigger api_keys_have_a_clock
  after insert or delete or update of key_id, rate_limit, rate_period on job_queue.api_keys
  for each row
  execute function job_queue.start_key_clock();

comment on trigger api_keys_have_a_clock on job_queue.api_keys is
  'Makes the sequence that is the clock of the key''s rate limit, and drops it.';
