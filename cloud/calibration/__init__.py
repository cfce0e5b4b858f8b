"""What makes revisions: breaches, battery starts, fleet priors, orders to roll back.

Must never tell anybody: what is committed is returned.
"""
