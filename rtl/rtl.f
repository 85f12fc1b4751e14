rtl/pcie/tlp_pkg.sv
rtl/bridge/mem_pkg.sv
rtl/iommu/iommu_pkg.sv
rtl/common/fifo.sv
rtl/pcie/tlp_class_fifo_gate.sv
rtl/pcie/tlp_class_fifo.sv
