-- depends: 0194_jobs_lanes_idx

-- Changes nothing.
--
-- What Postgres itself counts for its statistics: the index entries that were met, alive or dead,
-- and the pages, each taken for 20 of them, because the entries that are known to be dead are
-- passed over without being counted. Unlike time it is the same on a busy machine. Inlined like
-- first_of_lane.

create function job_queue.effort()
returns bigint
language sql
volatile
as $$
  select pg_catalog.pg_stat_get_xact_tuples_returned('job_queue.jobs_lanes_idx'::regclass)
         + 20 * pg_catalog.pg_stat_get_xact_blocks_fetched('job_queue.jobs_lanes_idx'::regclass)
$$;

comment on function job_queue.effort() is
  'How much has been searched in jobs_lanes_idx in this transaction; always 0 where track_counts '
  'is off. Private to this schema.';

revoke execute on function job_queue.effort() from public;
