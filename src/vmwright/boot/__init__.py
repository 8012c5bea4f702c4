"""What starts VMs in order when their host boots: a unit of systemd, a shell script, and a list for each cloud."""
