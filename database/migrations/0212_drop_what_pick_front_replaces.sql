-- depends: 0211_check_health

drop function job_queue.pick_limited_jobs(text, integer, text[]);

drop function job_queue.set_jobs_aside(text, integer, uuid[], uuid[]);
