"""What must hold of any input to the parsers, and the search for one that breaks it.

The checks are plain functions of bytes: `make fuzz` has atheris call them, tests have hypothesis.
"""
