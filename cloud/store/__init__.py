"""What the service keeps: tables, the database file, and every query. All of its SQL is here.

Must never change or delete a revision: triggers in the database refuse it, too.
"""
