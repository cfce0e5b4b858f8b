"""What is to be done to vehicles, and when: tasks that forecasts propose and people decide on.

Must never touch an estimate.
"""
