-- depends: 0196_set_mark

-- Changes nothing: how a lane is searched.
--
-- Like is_in_order it neither runs as its owner nor pins its search_path, so that Postgres makes it
-- part of the queries that call it. These pin the plan to jobs_lanes_idx: one cached while the
-- table was empty would otherwise scan and sort the whole backlog on every claim after a burst.

create function job_queue.first_of_lane(
  p_queue text,
  p_job_type text,
  p_priority integer,
  p_until timestamptz,
  p_limit integer,
  p_from_beginning boolean default false
)
returns table (
  place tid,
  id uuid,
  concurrency_key text,
  run_at timestamptz,
  seq bigint
)
language sql
stable
as $$
  select job.ctid, job.id, job.concurrency_key, job.run_at, job.seq
    from (values (1)) as always
    left join job_queue.marks as known
      on not p_from_beginning
     and (select exists (
            select from job_queue.marks as mark where mark.queue = p_queue and mark.is_set))
     and known.is_set
     and known.queue = p_queue
     and known.job_type = p_job_type
     and known.priority = p_priority
   cross join lateral (
     select case when known.mark_id is not null then pg_catalog.pg_sequence_last_value(
              pg_catalog.format('job_queue.mark_run_at_%s', known.mark_id)::regclass) end,
            case when known.mark_id is not null then pg_catalog.pg_sequence_last_value(
              pg_catalog.format('job_queue.mark_seq_%s', known.mark_id)::regclass) end
     ) as mark (run_at, seq)
   cross join lateral (
     select job.ctid, job.id, job.concurrency_key, job.run_at, job.seq
       from job_queue.jobs as job
      where job.claimable
        and job.queue = p_queue
        and job.job_type = p_job_type
        and job.priority = p_priority
        and (job.run_at, job.seq) > (
              coalesce(pg_catalog.to_timestamp(nullif(mark.run_at, 0) / 1000000.0), '-infinity'),
              coalesce(mark.seq, 0))
        and job.run_at <= p_until
      order by job.run_at, job.seq
      limit p_limit
   ) as job
$$;

comment on function job_queue.first_of_lane(
  text, text, integer, timestamptz, integer, boolean
) is
  'The first jobs of the lane that are due by p_until, p_limit at most, looked for from its mark '
  'on if it has one, unless p_from_beginning; place is where they are stored. Private to this '
  'schema.';

revoke execute on function job_queue.first_of_lane(
  text, text, integer, timestamptz, integer, boolean
) from public;
