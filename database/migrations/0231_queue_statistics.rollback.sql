drop view job_queue.queue_statistics;

-- For people: how each queue fares.

create view job_queue.queue_statistics as
  select
    counted.queue,
    coalesce(queue.paused, false) as paused,
    counted.blocked,
    counted.queued,
    counted.running,
    counted.succeeded,
    counted.failed,
    counted.cancelled,
    counted.ready,
    counted.oldest_ready_age,
    counted.ended_last_minute,
    counted.ended_last_hour,
    queue.concurrency_limit,
    queue.key_concurrency_limit,
    queue.rate_limit,
    queue.rate_period
    from (
      select
        job.queue,
        count(*) filter (where job.status = 'blocked') as blocked,
        count(*) filter (where job.status = 'queued') as queued,
        count(*) filter (where job.status = 'running') as running,
        count(*) filter (where job.status = 'succeeded') as succeeded,
        count(*) filter (where job.status = 'failed') as failed,
        count(*) filter (where job.status = 'cancelled') as cancelled,
        count(*) filter (
          where job.status = 'queued' and job.run_at <= clock_timestamp()) as ready,
        clock_timestamp() - min(job.run_at) filter (
          where job.status = 'queued' and job.run_at <= clock_timestamp()) as oldest_ready_age,
        count(*) filter (
          where job.status in ('succeeded', 'failed', 'cancelled')
            and job.updated_at > clock_timestamp() - interval '1 minute') as ended_last_minute,
        count(*) filter (
          where job.status in ('succeeded', 'failed', 'cancelled')
            and job.updated_at > clock_timestamp() - interval '1 hour') as ended_last_hour
        from job_queue.jobs as job
       group by job.queue
    ) as counted
    left join job_queue.queues as queue on queue.queue = counted.queue;

comment on view job_queue.queue_statistics is
  'For people: how each queue that has jobs fares. Reads the whole table jobs.';
comment on column job_queue.queue_statistics.queue is
  'The queue.';
comment on column job_queue.queue_statistics.paused is
  'Whether its jobs are not claimed.';
comment on column job_queue.queue_statistics.blocked is
  'How many jobs wait for others.';
comment on column job_queue.queue_statistics.queued is
  'How many jobs wait to be claimed, also those whose time has not come.';
comment on column job_queue.queue_statistics.running is
  'How many jobs run.';
comment on column job_queue.queue_statistics.succeeded is
  'How many jobs have succeeded and have not been pruned.';
comment on column job_queue.queue_statistics.failed is
  'How many jobs have failed and have not been pruned.';
comment on column job_queue.queue_statistics.cancelled is
  'How many jobs were cancelled and have not been pruned.';
comment on column job_queue.queue_statistics.ready is
  'How many jobs a worker could claim now, if no limit kept it from that.';
comment on column job_queue.queue_statistics.oldest_ready_age is
  'How long the first of these has been ready: the number to raise an alarm on.';
comment on column job_queue.queue_statistics.ended_last_minute is
  'How many jobs ended within the last minute.';
comment on column job_queue.queue_statistics.ended_last_hour is
  'How many jobs ended within the last hour.';
comment on column job_queue.queue_statistics.concurrency_limit is
  'As in queues.';
comment on column job_queue.queue_statistics.key_concurrency_limit is
  'As in queues.';
comment on column job_queue.queue_statistics.rate_limit is
  'As in queues.';
comment on column job_queue.queue_statistics.rate_period is
  'As in queues.';

do $$
begin
  perform job_queue.grant_roles();
end
$$;
