"""From a sample to a finished trip: detection, prediction, error, band, trace, checkpoint, report.

Must never touch the link.
"""
