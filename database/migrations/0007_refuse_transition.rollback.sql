drop trigger jobs_change_status_as_job_transitions_says on job_queue.jobs;

drop function job_queue.refuse_transition();
