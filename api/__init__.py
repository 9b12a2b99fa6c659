"""The REST API: thin calls of the queue's functions in Postgres."""
