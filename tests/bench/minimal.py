"""A queue of the fewest statements that do, to compare with: no lease, no fence, no history."""

SQL = """
create schema minimal;
create table minimal.jobs (
  id bigint generated always as identity primary key,
  state text not null default 'ready',
  payload jsonb not null,
  created_at timestamptz not null default now(),
  claimed_at timestamptz,
  done_at timestamptz
);
create index on minimal.jobs (id) where state = 'ready';

create function minimal.enqueue(p_payload jsonb) returns bigint language plpgsql as $$
declare v_id bigint;
begin
  insert into minimal.jobs (payload) values (p_payload) returning id into v_id;
  return v_id;
end $$;

create function minimal.enqueue_many(p_payloads jsonb[]) returns void language plpgsql as $$
begin
  insert into minimal.jobs (payload) select unnest(p_payloads);
end $$;

create function minimal.claim_many(p_limit integer) returns table (id bigint, payload jsonb)
language plpgsql as $$
begin
  return query
    with ready as (
      select job.id from minimal.jobs as job
       where job.state = 'ready' order by job.id for update skip locked limit p_limit)
    update minimal.jobs as job set state = 'running', claimed_at = now()
      from ready where job.id = ready.id
    returning job.id, job.payload;
end $$;

create function minimal.claim() returns table (id bigint, payload jsonb) language plpgsql as $$
begin
  return query
    update minimal.jobs as job set state = 'running', claimed_at = now()
     where job.id = (select ready.id from minimal.jobs as ready where ready.state = 'ready'
                      order by ready.id for update skip locked limit 1)
    returning job.id, job.payload;
end $$;

create function minimal.complete_many(p_ids bigint[]) returns void language plpgsql as $$
begin
  update minimal.jobs set state = 'done', done_at = now()
   where id = any (p_ids) and state = 'running';
end $$;

create function minimal.complete(p_id bigint) returns void language plpgsql as $$
begin
  update minimal.jobs set state = 'done', done_at = now() where id = p_id and state = 'running';
end $$;
"""
