// SPDX-License-Identifier: MIT OR Apache-2.0

/// Type 0 configuration space of one function (PCIe 6.0 §7.5.1.2) with a PCI Express capability
/// at 0x40 (§7.5.3) and an MSI-X capability at 0x80 (§7.7.2).
///
/// BAR0 and BAR2 are 64-bit, BAR2 prefetchable. Extended configuration space is empty.
///
/// Handshake kind: a read is combinational; a write is taken in the cycle of `write_i`.
module cfg_type0 #(
  /// Vendor ID, also the subsystem's.
  parameter logic [15:0] VendorId = 16'h1b36,
  /// Device ID, also the subsystem's.
  parameter logic [15:0] DeviceId = 16'h0e9d,
  /// Class code: base class, sub-class, interface.
  parameter logic [23:0] ClassCode = 24'h120000,
  /// Address bits of BAR0.
  parameter int unsigned Bar0W = 14,
  /// Address bits of BAR2.
  parameter int unsigned Bar2W = 20,
  /// MSI-X vectors.
  parameter int unsigned Vectors = 8,
  /// Offset of the MSI-X table in BAR0.
  parameter logic [31:0] TableOffset = 32'h2000,
  /// Offset of the pending bits in BAR0.
  parameter logic [31:0] PbaOffset = 32'h3000
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// DW number of the register.
  input logic [9:0] dw_i,
  /// Contents of the register.
  output logic [31:0] rdata_o,
  /// Write the register.
  input logic write_i,
  /// Byte enables.
  input logic [3:0] be_i,
  /// Data.
  input logic [31:0] wdata_i,
  /// Bus and device number of the write's target, captured with it (PCIe 6.0 §2.2.6.2).
  input logic [12:0] bus_dev_i,

  /// The function's ID.
  output logic [15:0] bdf_o,
  /// Memory Space Enable.
  output logic mem_enable_o,
  /// Bus Master Enable.
  output logic bus_master_o,
  /// Max_Payload_Size as encoded in Device Control.
  output logic [2:0] mps_o,
  /// Max_Read_Request_Size as encoded in Device Control.
  output logic [2:0] mrrs_o,
  /// Base of BAR0.
  output logic [63:Bar0W] bar0_o,
  /// Base of BAR2.
  output logic [63:Bar2W] bar2_o,
  /// MSI-X Enable.
  output logic msix_enable_o,
  /// MSI-X Function Mask.
  output logic msix_mask_o
);

  // DW numbers.
  localparam logic [9:0] RegId = 10'h000;
  localparam logic [9:0] RegCommand = 10'h001;
  localparam logic [9:0] RegClass = 10'h002;
  localparam logic [9:0] RegBar0 = 10'h004;
  localparam logic [9:0] RegBar1 = 10'h005;
  localparam logic [9:0] RegBar2 = 10'h006;
  localparam logic [9:0] RegBar3 = 10'h007;
  localparam logic [9:0] RegSubsystem = 10'h00b;
  localparam logic [9:0] RegCapPtr = 10'h00d;
  localparam logic [9:0] RegInterrupt = 10'h00f;
  localparam logic [9:0] RegPcieCap = 10'h010;
  localparam logic [9:0] RegDevCap = 10'h011;
  localparam logic [9:0] RegDevCtl = 10'h012;
  localparam logic [9:0] RegLinkCap = 10'h013;
  localparam logic [9:0] RegLinkCtl = 10'h014;
  localparam logic [9:0] RegDevCap2 = 10'h019;
  localparam logic [9:0] RegLinkCap2 = 10'h01b;
  localparam logic [9:0] RegLinkCtl2 = 10'h01c;
  localparam logic [9:0] RegMsix = 10'h020;
  localparam logic [9:0] RegMsixTable = 10'h021;
  localparam logic [9:0] RegMsixPba = 10'h022;

  // Writable bits of each register; what is not writable is constant.
  localparam logic [31:0] MaskCommand = 32'h0000_0006;
  localparam logic [31:0] MaskInterrupt = 32'h0000_00ff;
  // Error reporting, Relaxed Ordering, MPS, Extended Tag, No Snoop, MRRS. What a TLP carries is
  // the descriptor's choice; the enables are there for software to find.
  localparam logic [31:0] MaskDevCtl = 32'h0000_79ff;
  localparam logic [31:0] MaskMsix = 32'hc000_0000;

  logic [12:0] bus_dev_q;
  logic [31:0] command_q;
  logic [31:0] interrupt_q;
  logic [31:0] dev_ctl_q;
  logic [31:0] msix_q;
  logic [63:0] bar0_q;
  logic [63:0] bar2_q;

  localparam logic [63:0] MaskBar0 = ~((64'd1 << Bar0W) - 64'd1);
  localparam logic [63:0] MaskBar2 = ~((64'd1 << Bar2W) - 64'd1);

  logic [31:0] be_mask;

  assign be_mask = {{8{be_i[3]}}, {8{be_i[2]}}, {8{be_i[1]}}, {8{be_i[0]}}};

  function automatic logic [31:0] merge(logic [31:0] old, logic [31:0] data, logic [31:0] mask);
    return (old & ~mask) | (data & mask);
  endfunction

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      bus_dev_q <= '0;
      command_q <= '0;
      interrupt_q <= '0;
      // Defaults of PCIe 6.0 §7.5.3.4: MRRS 512, No Snoop and Relaxed Ordering enabled.
      dev_ctl_q <= 32'h0000_2910;
      msix_q <= '0;
      bar0_q <= '0;
      bar2_q <= '0;
    end else if (write_i) begin
      bus_dev_q <= bus_dev_i;
      unique case (dw_i)
        RegCommand: command_q <= merge(command_q, wdata_i, be_mask & MaskCommand);
        RegBar0: bar0_q[31:0] <= merge(bar0_q[31:0], wdata_i, be_mask & MaskBar0[31:0]);
        RegBar1: bar0_q[63:32] <= merge(bar0_q[63:32], wdata_i, be_mask & MaskBar0[63:32]);
        RegBar2: bar2_q[31:0] <= merge(bar2_q[31:0], wdata_i, be_mask & MaskBar2[31:0]);
        RegBar3: bar2_q[63:32] <= merge(bar2_q[63:32], wdata_i, be_mask & MaskBar2[63:32]);
        RegInterrupt: interrupt_q <= merge(interrupt_q, wdata_i, be_mask & MaskInterrupt);
        RegDevCtl: dev_ctl_q <= merge(dev_ctl_q, wdata_i, be_mask & MaskDevCtl);
        RegMsix: msix_q <= merge(msix_q, wdata_i, be_mask & MaskMsix);
        default: ;
      endcase
    end
  end

  always_comb begin
    unique case (dw_i)
      RegId: rdata_o = {DeviceId, VendorId};
      // Status: capabilities list.
      RegCommand: rdata_o = 32'h0010_0000 | command_q;
      RegClass: rdata_o = {ClassCode, 8'h01};
      RegBar0: rdata_o = bar0_q[31:0] | 32'h4;
      RegBar1: rdata_o = bar0_q[63:32];
      RegBar2: rdata_o = bar2_q[31:0] | 32'hc;
      RegBar3: rdata_o = bar2_q[63:32];
      RegSubsystem: rdata_o = {DeviceId, VendorId};
      RegCapPtr: rdata_o = 32'h40;
      RegInterrupt: rdata_o = interrupt_q;
      // Capability version 2, PCI Express Endpoint.
      RegPcieCap: rdata_o = {16'h0002, 8'h80, 8'h10};
      // MPS 512, 8-bit tags, role-based error reporting.
      RegDevCap: rdata_o = 32'h0000_8022;
      RegDevCtl: rdata_o = dev_ctl_q;
      // 32 GT/s, x16; RCB 64.
      RegLinkCap: rdata_o = 32'h0000_0105;
      RegLinkCtl: rdata_o = 32'h0105_0000;
      // 10-bit tag completer, one end-end TLP prefix.
      RegDevCap2: rdata_o = 32'h0061_0000;
      RegLinkCap2: rdata_o = 32'h0000_003e;
      RegLinkCtl2: rdata_o = 32'h0000_0005;
      RegMsix: rdata_o = {5'b0, 11'(Vectors - 1), 8'h00, 8'h11} | msix_q;
      RegMsixTable: rdata_o = TableOffset;
      RegMsixPba: rdata_o = PbaOffset;
      default: rdata_o = '0;
    endcase
  end

  assign bdf_o = {bus_dev_q, 3'd0};
  assign mem_enable_o = command_q[1];
  assign bus_master_o = command_q[2];
  assign mps_o = dev_ctl_q[7:5];
  assign mrrs_o = dev_ctl_q[14:12];
  assign bar0_o = bar0_q[63:Bar0W];
  assign bar2_o = bar2_q[63:Bar2W];
  assign msix_enable_o = msix_q[31];
  assign msix_mask_o = msix_q[30];

  // Reserved encodings stay as written; what uses them must clamp.
  assert property (@(posedge clk_i) disable iff (!rst_ni) (bar0_q & ~MaskBar0) == '0);
  assert property (@(posedge clk_i) disable iff (!rst_ni) (bar2_q & ~MaskBar2) == '0);

endmodule
