drop table job_queue.event_totals;
drop table job_queue.event_cursor;
