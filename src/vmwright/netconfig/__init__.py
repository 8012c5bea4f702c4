"""What the files say that a host's own network is made from, and what they say with bridges. Text in, text out."""
