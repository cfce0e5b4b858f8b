"""What the service keeps: tables, the database, and every query. All of its SQL is here.

Must never change or delete a revision: triggers in the database refuse it, too.
"""

from cloud.store import portable as portable  # before any table is declared
