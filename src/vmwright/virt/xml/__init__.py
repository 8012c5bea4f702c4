"""What each libvirt XML element is; no policy."""
