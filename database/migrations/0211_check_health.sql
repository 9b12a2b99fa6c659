-- depends: 0210_explain_place

-- Changes nothing.

create or replace function job_queue.check_health()
returns table (
  aspect text,
  severity text,
  detail text
)
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select 'xmin horizon',
         case when held_since < clock_timestamp() - interval '10 minutes' then 'critical'
              when held_since < clock_timestamp() - interval '1 minute'
                or holder is not null and held_since is null then 'warning'
              else 'ok' end,
         case when holder is null then 'held back by nobody that can be seen'
              else format('%s holds it back since %s: what has died since cannot be vacuumed, and '
                          'claims slow down', holder, coalesce(held_since::text, 'long')) end
    from (values (1)) as always
    left join job_queue.oldest_snapshot() as oldest on true
  union all
  select 'sessions', case when sees.all_of_them then 'ok' else 'warning' end,
         case when sees.all_of_them then 'all can be seen' else format(
           'those of other roles cannot be seen: grant pg_read_all_stats to %I', current_user) end
    from (select pg_has_role(current_user, 'pg_read_all_stats', 'usage')) as sees (all_of_them)
  union all
  select 'dead rows',
         case when max(n_dead_tup) > 500000 then 'critical'
              when max(n_dead_tup) > 50000 then 'warning' else 'ok' end,
         string_agg(format('%s: %s dead, %s live', relname, n_dead_tup, n_live_tup), '; '
                    order by relname)
    from pg_stat_user_tables
   where schemaname = 'job_queue' and relname in ('jobs', 'claims', 'job_events')
  union all
  select 'maintenance',
         case when last_at > clock_timestamp() - interval '5 minutes' then 'ok' else 'warning' end,
         coalesce('run_maintenance last came to its end at ' || last_at,
                  'run_maintenance has never come to its end: let a worker call it')
    from (select to_timestamp(nullif(pg_sequence_last_value('job_queue.maintained_at'), 0)
                              / 1000000.0) as last_at) as maintained
  union all
  select 'expired claims',
         case when count(*) > 0 then 'warning' else 'ok' end,
         format('%s claims ran out more than half a minute ago', count(*))
    from job_queue.claims
   where expires_at < clock_timestamp() - interval '30 seconds'
  union all
  select 'workers',
         case when work.is_waiting and not attended.is_true then 'warning' else 'ok' end,
         format('%s, %s', case when work.is_waiting then 'jobs wait' else 'no job waits' end,
                case when attended.is_true then 'and workers have been seen within a minute'
                     else 'and no worker has been seen within a minute' end)
    from (select job_queue.ready_queues(job_queue.waiting_queues()) <> '{}') as work (is_waiting)
   cross join (select exists (
           select from job_queue.worker_sightings
            where seen_at > clock_timestamp() - interval '1 minute')
           or exists (select from job_queue.claims
                       where expires_at > clock_timestamp())) as attended (is_true)
  union all
  select 'schedules',
         case when count(*) > 0 then 'warning' else 'ok' end,
         coalesce(string_agg(format('%s: %s', schedule, last_error), '; '), 'none has failed')
    from job_queue.schedules
   where last_error is not null
  union all
  select 'notification queue',
         case when pg_notification_queue_usage() > 0.5 then 'critical'
              when pg_notification_queue_usage() > 0.1 then 'warning' else 'ok' end,
         format('%s %% full', round(100 * pg_notification_queue_usage()::numeric, 1))
$$;

comment on function job_queue.check_health() is
  'What would hurt next: each aspect with its severity (ok, warning, critical) and what there is '
  'to know. The view health shows it.';

revoke execute on function job_queue.check_health() from public;
