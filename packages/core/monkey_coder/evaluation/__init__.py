"""Comparing routers by the rules of docs/reference/evaluation.md."""
