"""What people are shown: the state of everything, as JSON and as a page."""
