"""Inside the guest: the NoCloud seed, the guest agent, growing a file system."""
