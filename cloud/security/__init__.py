"""Who may do what, and the keys that prove it.

Must never log a secret.
"""
