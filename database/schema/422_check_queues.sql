-- Changes nothing: refuses names that no queue can have.

create function job_queue.check_queues(
  p_queues text[]
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_queues = '{}' then
    perform job_queue.raise_invalid_argument(
      'queues', '{}', 'Pass an array of at least one name, or null for all queues.');
  end if;
  perform job_queue.raise_invalid_argument(
    'queue', left(named.queue, 100), 'Pass a name of 1 to 100 characters.')
     from unnest(p_queues) as named (queue)
    where length(named.queue) between 1 and 100 is not true;
end
$$;

comment on function job_queue.check_queues(text[]) is
  'Raises JQ001 for an empty array, or for a name that is null, empty or too long. Private to this '
  'schema.';

revoke execute on function job_queue.check_queues(text[]) from public;
