"""libvirt: the connection, the XML (what an element is) and the design (what we choose)."""
