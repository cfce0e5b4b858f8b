"""What the agent keeps on its disk: one SQLite file, and what becomes of it when it breaks.

Must never know what a message or a revision means beyond the few columns it is looked up by.
"""
