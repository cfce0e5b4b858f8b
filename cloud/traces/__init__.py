"""Traces of breaches: in the database while they are young, then in an archive of Parquet files.

Must never let a trace leave the database before its file is known to be whole.
"""
