"""The operator API. Must never change what the vehicles and the worker do: it only reads."""
