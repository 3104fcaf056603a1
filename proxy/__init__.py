"""Forwarding: the request to an endpoint that was chosen, its answer back, failures named."""
