drop function job_queue.add_event_totals(bigint, bigint);
