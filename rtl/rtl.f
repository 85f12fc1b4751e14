rtl/pcie/tlp_pkg.sv
rtl/bridge/mem_pkg.sv
rtl/iommu/iommu_pkg.sv
rtl/common/fifo.sv
