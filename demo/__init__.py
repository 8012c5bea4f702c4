"""What `./dev demo` shows besides the cloud on this machine."""
