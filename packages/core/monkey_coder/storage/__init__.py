"""What outlives a process: one port, and two stores that keep its contract (SQLite and Redis)."""
