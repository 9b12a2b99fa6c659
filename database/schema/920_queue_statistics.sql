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
    clock_timestamp() - counted.ready_since as oldest_ready_age,
    counted.ended_last_minute,
    counted.ended_last_hour,
    queue.concurrency_limit,
    queue.key_concurrency_limit,
    queue.rate_limit,
    queue.rate_period,
    counted.estimated
    from job_queue.count_jobs() as counted
    left join job_queue.queues as queue on queue.queue = counted.queue;

comment on view job_queue.queue_statistics is
  'For people: how each queue that has jobs fares. Exact while there are no more than 100,000 jobs '
  'in all. Beyond that, where estimated is true, succeeded, cancelled and whatever there are more '
  'than some thousands of are estimated from a sample: they are 0 for a queue that the sample '
  'misses, and a queue that has nothing else, no policy, and that count_events has never counted, '
  'is missing.';
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
comment on column job_queue.queue_statistics.estimated is
  'Whether there are more than 100,000 jobs in all, and these numbers may be estimates.';
