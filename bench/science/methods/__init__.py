"""The peers: each a small pure module with its source, each behind the same interface."""
