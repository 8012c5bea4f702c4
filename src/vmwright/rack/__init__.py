"""The rack: an emulated two-socket server with NVMe drives and an IOMMU, to try a whole cloud on."""
