"""One file a version of the tables. Those that are released must never change."""
