"""Comparing routers by the rules of docs/evaluation.md."""
