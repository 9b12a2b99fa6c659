-- Changes nothing: the lower end of the ids that are made in a millisecond.

create function job_queue.first_id_of(
  p_at timestamptz
)
returns uuid
language sql
immutable
strict
security definer
set search_path = pg_catalog, pg_temp
as $$
  select rpad(
    lpad(to_hex(floor(extract(epoch from
      least(greatest(p_at, '1970-01-01 UTC'), '9999-12-31 UTC')) * 1000)::bigint), 12, '0')
    || '7', 32, '0')::uuid
$$;

comment on function job_queue.first_id_of(timestamptz) is
  'The id below all that new_job_id makes from this millisecond on. Null: null. Private to this '
  'schema.';

revoke execute on function job_queue.first_id_of(timestamptz) from public;
