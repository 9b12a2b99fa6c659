-- Changes no job: makes the two sequences of a mark, and drops them.

create function job_queue.start_mark()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    execute format('create sequence job_queue.mark_run_at_%s minvalue 0 start 0', new.mark_id);
    execute format('create sequence job_queue.mark_seq_%s minvalue 0 start 0', new.mark_id);
    return new;
  end if;
  execute format('drop sequence job_queue.mark_run_at_%1$s, job_queue.mark_seq_%1$s', old.mark_id);
  return old;
end
$$;

comment on function job_queue.start_mark() is
  'Makes and drops job_queue.mark_run_at_<mark_id> and job_queue.mark_seq_<mark_id>: a lane is '
  'searched behind the job with that run_at, in microseconds since 1970, and that seq. 0 in the '
  'former: it is searched from its beginning.';

revoke execute on function job_queue.start_mark() from public;

create trigger marks_have_sequences
  after insert or delete on job_queue.marks
  for each row
  execute function job_queue.start_mark();

comment on trigger marks_have_sequences on job_queue.marks is
  'Makes the two sequences of a mark, and drops them.';
