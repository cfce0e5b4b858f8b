"""The operator API. It reads; only `orders` writes, and what it writes the worker carries out."""
