"""The facts: what is there. One read of each host, frozen, saved and loaded as JSON."""
