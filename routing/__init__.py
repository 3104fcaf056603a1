"""Deciding: which endpoints may get a request, in which order, and what may be tried again."""
