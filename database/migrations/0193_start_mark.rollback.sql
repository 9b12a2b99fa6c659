delete from job_queue.marks;
drop trigger marks_have_sequences on job_queue.marks;
drop function job_queue.start_mark();
