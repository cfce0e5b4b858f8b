"""Work that any worker process may take: jobs in PostgreSQL, run by procrastinate.

A job is a wake-up and a lock, never the truth: that is in the tables of `cloud.store`. A job that
is lost or done twice must change nothing but the time at which something happens.
"""
