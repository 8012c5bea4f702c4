"""What will not work on a host, why it matters for this cloud, and what to do about it."""
