delete from job_queue.queues;
drop trigger queues_have_a_rate_clock on job_queue.queues;
drop function job_queue.start_rate_clock();
