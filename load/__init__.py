"""What engines say of their load: asked for, read, and kept as immutable values."""
