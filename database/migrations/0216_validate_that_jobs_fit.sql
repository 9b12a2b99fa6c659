-- depends: 0215_jobs_fit_their_status

alter table job_queue.jobs validate constraint jobs_fit_their_status;
