"""The same events as text or JSON."""
