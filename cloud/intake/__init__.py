"""From deliveries to committed facts, receipts and acknowledgements to the broker.

Must never acknowledge what is not committed.
"""
