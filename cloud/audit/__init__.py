"""What proves where a revision comes from: chains, signed heads, inputs, lineage.

Must never change what it proves.
"""
