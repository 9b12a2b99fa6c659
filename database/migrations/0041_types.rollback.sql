drop type job_queue.new_job;
drop type job_queue.pick;
drop type job_queue.run;
