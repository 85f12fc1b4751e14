// SPDX-License-Identifier: MIT OR Apache-2.0

/// Configuration space of a function that is part of the root complex: type 0 header without or
/// with one 64-bit BAR of 4 KiB, and a PCI Express capability at 0x40 (PCIe 6.0 §7.5.1.2, §7.5.3;
/// Device/Port Type: Root Complex Integrated Endpoint).
///
/// Handshake kind: valid only. A write takes effect at the clock edge; read data is combinational.
module cfg_rc_function #(
  /// Vendor ID.
  parameter logic [15:0] VendorId = 16'h1ae0,
  /// Device ID.
  parameter logic [15:0] DeviceId = 16'h0001,
  /// Class code.
  parameter logic [23:0] ClassCode = 24'h060000,
  /// BAR0 is present.
  parameter bit HasBar0 = 1'b0
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// The write is performed at this clock edge.
  input logic write_i,
  /// DW number of the register, for reads and writes.
  input logic [9:0] dw_i,
  /// Byte enables of the write.
  input logic [3:0] be_i,
  /// Data of the write.
  input logic [31:0] wdata_i,
  /// The register at `dw_i`.
  output logic [31:0] rdata_o,

  /// Memory Space Enable.
  output logic mem_enable_o,
  /// Base of BAR0.
  output logic [63:12] bar0_o
);

  localparam logic [31:0] CommandMask = 32'h0000_0006;
  localparam logic [31:0] Bar0Mask = HasBar0 ? 32'hffff_f000 : 32'd0;
  localparam logic [31:0] Bar1Mask = HasBar0 ? 32'hffff_ffff : 32'd0;
  localparam logic [31:0] Bar0Type = HasBar0 ? 32'h4 : 32'd0;  // 64-bit, not prefetchable

  logic [31:0] command_q;
  logic [31:0] bar0_q;
  logic [31:0] bar1_q;
  logic [31:0] lanes;

  assign lanes = {{8{be_i[3]}}, {8{be_i[2]}}, {8{be_i[1]}}, {8{be_i[0]}}};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      command_q <= '0;
      bar0_q <= '0;
      bar1_q <= '0;
    end else if (write_i) begin
      case (dw_i)
        10'h001: command_q <= ((command_q & ~lanes) | (wdata_i & lanes)) & CommandMask;
        10'h004: bar0_q <= ((bar0_q & ~lanes) | (wdata_i & lanes)) & Bar0Mask;
        10'h005: bar1_q <= ((bar1_q & ~lanes) | (wdata_i & lanes)) & Bar1Mask;
        default: ;
      endcase
    end
  end

  always_comb begin
    case (dw_i)
      10'h000: rdata_o = {DeviceId, VendorId};
      10'h001: rdata_o = {16'h0010, command_q[15:0]};
      10'h002: rdata_o = {ClassCode, 8'h00};
      10'h004: rdata_o = bar0_q | Bar0Type;
      10'h005: rdata_o = bar1_q;
      10'h00b: rdata_o = {DeviceId, VendorId};
      10'h00d: rdata_o = 32'h0000_0040;
      10'h010: rdata_o = 32'h0092_0010;
      10'h011: rdata_o = 32'h0000_8022;
      default: rdata_o = '0;
    endcase
  end

  assign mem_enable_o = command_q[1];
  assign bar0_o = {bar1_q, bar0_q[31:12]};

endmodule
