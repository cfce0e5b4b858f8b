"""The processes that `twin-cloud` runs, put together from the parts.

Must never hold logic of their own beyond starting, stopping and handing on.
"""
