"""The worker: claims jobs from the queue in Postgres and runs them."""
