"""The process that moves the bytes of streams. Imports nothing of the other packages."""
