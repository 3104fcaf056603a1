"""What holds for all tests."""

from hypothesis import settings

# The machine is shared with real gateways under load: how long an example takes says nothing.
settings.register_profile("here", deadline=None, database=None)
settings.load_profile("here")
