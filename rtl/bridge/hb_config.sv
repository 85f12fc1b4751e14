// SPDX-License-Identifier: MIT OR Apache-2.0

/// The functions on bus 0: host bridge (device 0), IOMMU (device 1, absent when there is no IOMMU),
/// root ports (devices 2 and up).
///
/// Handshake kind: valid only. A write takes effect at the clock edge; read data is combinational.
module hb_config #(
  /// Root ports.
  parameter int unsigned NumRp = 2,
  /// Vendor ID of the host bridge.
  parameter logic [15:0] HbVendorId = 16'h1ae0
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,
  /// The IOMMU's function is present.
  input logic iommu_enable_i,

  /// Device and Function Number of the access.
  input logic [7:0] devfn_i,
  /// Such a function is present.
  output logic present_o,
  /// The write is performed at this clock edge.
  input logic write_i,
  /// DW number of the register.
  input logic [9:0] dw_i,
  /// Byte enables of the write.
  input logic [3:0] be_i,
  /// Data of the write.
  input logic [31:0] wdata_i,
  /// The register.
  output logic [31:0] rdata_o,

  /// The IOMMU's registers are enabled.
  output logic iommu_mem_enable_o,
  /// Their base.
  output logic [63:12] iommu_bar_o,
  /// A request from below a root port violates its Access Control Services.
  input logic [NumRp-1:0] acs_violation_i,
  /// Configuration of the root ports.
  output port_pkg::port_cfg_t [NumRp-1:0] rp_cfg_o
);

  localparam int unsigned NumFn = NumRp + 2;

  logic [4:0] device;
  logic [NumFn-1:0] sel;
  logic [NumFn-1:0][31:0] rdata;

  assign device = devfn_i[7:3];

  always_comb begin
    rdata_o = '0;
    for (int unsigned f = 0; f < NumFn; f++) begin
      sel[f] = devfn_i == {5'(f), 3'd0} && (f != 1 || iommu_enable_i);
      if (sel[f]) rdata_o = rdata[f];
    end
  end

  assign present_o = |sel;

  cfg_rc_function #(
    .VendorId(HbVendorId),
    .DeviceId(16'h0001),
    .ClassCode(24'h060000),
    .HasBar0(1'b0)
  ) u_host_bridge (
    .clk_i,
    .rst_ni,
    .write_i(write_i && sel[0]),
    .dw_i,
    .be_i,
    .wdata_i,
    .rdata_o(rdata[0]),
    // verilator lint_off PINCONNECTEMPTY
    .mem_enable_o(),  // no BAR
    .bar0_o()         // likewise
    // verilator lint_on PINCONNECTEMPTY
  );

  cfg_rc_function #(
    .VendorId(16'h1efd),
    .DeviceId(16'h0008),
    .ClassCode(24'h080600),
    .HasBar0(1'b1)
  ) u_iommu (
    .clk_i,
    .rst_ni,
    .write_i(write_i && sel[1]),
    .dw_i,
    .be_i,
    .wdata_i,
    .rdata_o(rdata[1]),
    .mem_enable_o(iommu_mem_enable_o),
    .bar0_o(iommu_bar_o)
  );

  for (genvar p = 0; p < NumRp; p++) begin : gen_rp
    cfg_type1 #(
      .VendorId(16'h1b36),
      .DeviceId(16'h000c),
      .PortType(port_pkg::PortRoot),
      .PortNumber(8'(p)),
      .NumPeers(NumRp),
      .HasAcs(1'b1)
    ) u_cfg (
      .clk_i,
      .rst_ni,
      .write_i(write_i && sel[p+2]),
      .dw_i,
      .be_i,
      .wdata_i,
      .rdata_o(rdata[p+2]),
      .target_abort_i(acs_violation_i[p]),
      .cfg_o(rp_cfg_o[p])
    );
  end

  // At most one function is selected.
  assert property (@(posedge clk_i) disable iff (!rst_ni) $onehot0(sel));
  assert property (@(posedge clk_i) disable iff (!rst_ni) !present_o || 32'(device) < NumFn);

endmodule
