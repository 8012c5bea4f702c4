"""Hosts: the only place that starts processes, here or over OpenSSH."""
