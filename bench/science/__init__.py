"""The scientific comparison: our calibration against its peers, the truth and the literature.

Must never tune and report on the same vehicles, nor edit what it judges.
"""
