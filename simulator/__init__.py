"""A pretend cluster over real sockets: the EndpointSlice API and model pods with a life cycle.

The demo, the tests and the benchmark share it. Product code never imports it.
"""
