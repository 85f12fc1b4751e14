// SPDX-License-Identifier: MIT OR Apache-2.0

/// Configuration space of a port: type 1 header, PCI Express capability at 0x40, and, in ports
/// that face down, ACS extended capability at 0x100 (PCIe 6.0 §7.5.1.3, §7.5.3, §7.7.11).
///
/// Handshake kind: valid only. A write takes effect at the clock edge; read data is combinational.
module cfg_type1 #(
  /// Vendor ID.
  parameter logic [15:0] VendorId = 16'h1b36,
  /// Device ID.
  parameter logic [15:0] DeviceId = 16'h000d,
  /// Device/Port Type, one of `port_pkg::Port*`.
  parameter logic [3:0] PortType = port_pkg::PortDownstream,
  /// Port Number of Link Capabilities; the port's own bit of an egress control vector.
  parameter logic [7:0] PortNumber = 8'd0,
  /// Ports that an egress control vector names, 1 to 32.
  parameter int unsigned NumPeers = 2,
  /// An ACS capability is present.
  parameter bit HasAcs = 1'b1
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

  /// This port completes a request from its secondary side as a Completer Abort.
  input logic target_abort_i,

  /// The decoded registers.
  output port_pkg::port_cfg_t cfg_o
);

  localparam logic [9:0] DwCommand = 10'h001;
  localparam logic [9:0] DwBus = 10'h006;
  localparam logic [9:0] DwSecStatus = 10'h007;
  localparam logic [9:0] DwMem = 10'h008;
  localparam logic [9:0] DwPf = 10'h009;
  localparam logic [9:0] DwPfBaseHi = 10'h00a;
  localparam logic [9:0] DwPfLimitHi = 10'h00b;
  localparam logic [9:0] DwBridgeCtl = 10'h00f;
  localparam logic [9:0] DwPcie = 10'h010;
  localparam logic [9:0] DwDevCtl = 10'h012;
  localparam logic [9:0] DwAcs = 10'h040;
  localparam logic [9:0] DwAcsCtl = 10'h041;
  localparam logic [9:0] DwAcsEgress = 10'h042;

  // Writable bits of each register.
  localparam logic [31:0] CommandMask = 32'h0000_0546;  // memory, master, parity, SERR, INTx
  localparam logic [31:0] BridgeCtlMask = 32'h0043_00ff;  // parity, SERR, bus reset; line
  localparam logic [31:0] DevCtlMask = 32'h0000_79ff;
  // SV, RR, CR, UF, EC; Translation Blocking and Direct Translated P2P are not implemented.
  localparam logic [6:0] AcsCapable = 7'b011_1101;
  localparam logic [31:0] EgressMask = 32'((64'd1 << NumPeers) - 64'd1) & ~(32'd1 << PortNumber);

  logic [31:0] command_q;
  logic [31:0] bus_q;
  logic target_abort_q;  // Secondary Status: Signaled Target Abort (§7.5.1.3.7)
  logic [31:0] mem_q;
  logic [31:0] pf_q;
  logic [31:0] pf_base_hi_q;
  logic [31:0] pf_limit_hi_q;
  logic [31:0] bridge_ctl_q;
  logic [31:0] dev_ctl_q;
  logic [6:0] acs_ctl_q;
  logic [31:0] egress_q;

  function automatic logic [31:0] merge(logic [31:0] old, logic [31:0] data, logic [3:0] be,
                                        logic [31:0] mask);
    logic [31:0] m;
    m = {{8{be[3]}}, {8{be[2]}}, {8{be[1]}}, {8{be[0]}}} & mask;
    return (old & ~m) | (data & m);
  endfunction

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      command_q <= '0;
      bus_q <= '0;
      mem_q <= '0;
      pf_q <= '0;
      pf_base_hi_q <= '0;
      pf_limit_hi_q <= '0;
      bridge_ctl_q <= '0;
      dev_ctl_q <= 32'h0000_2810;  // MRRS 512, No Snoop and Relaxed Ordering enabled (§7.5.3.4)
      acs_ctl_q <= '0;
      egress_q <= '0;
    end else if (write_i) begin
      case (dw_i)
        DwCommand: command_q <= merge(command_q, wdata_i, be_i, CommandMask);
        DwBus: bus_q <= merge(bus_q, wdata_i, be_i, 32'h00ff_ffff);
        DwMem: mem_q <= merge(mem_q, wdata_i, be_i, 32'hfff0_fff0);
        DwPf: pf_q <= merge(pf_q, wdata_i, be_i, 32'hfff0_fff0);
        DwPfBaseHi: pf_base_hi_q <= merge(pf_base_hi_q, wdata_i, be_i, 32'hffff_ffff);
        DwPfLimitHi: pf_limit_hi_q <= merge(pf_limit_hi_q, wdata_i, be_i, 32'hffff_ffff);
        DwBridgeCtl: bridge_ctl_q <= merge(bridge_ctl_q, wdata_i, be_i, BridgeCtlMask);
        DwDevCtl: dev_ctl_q <= merge(dev_ctl_q, wdata_i, be_i, DevCtlMask);
        DwAcsCtl: begin
          if (HasAcs && be_i[2]) acs_ctl_q <= wdata_i[22:16] & AcsCapable;
        end
        DwAcsEgress: begin
          if (HasAcs) egress_q <= merge(egress_q, wdata_i, be_i, EgressMask);
        end
        default: ;
      endcase
    end
  end

  // Written 1 to clear; an event at the same clock edge is not lost.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) target_abort_q <= 1'b0;
    else if (target_abort_i) target_abort_q <= 1'b1;
    else if (write_i && dw_i == DwSecStatus && be_i[3] && wdata_i[27]) target_abort_q <= 1'b0;
  end

  always_comb begin
    case (dw_i)
      10'h000: rdata_o = {DeviceId, VendorId};
      DwCommand: rdata_o = {16'h0010, command_q[15:0]};  // Status: capability list
      10'h002: rdata_o = {24'h060400, 8'h00};
      10'h003: rdata_o = 32'h0001_0000;
      DwBus: rdata_o = bus_q;
      DwSecStatus: rdata_o = {4'd0, target_abort_q, 27'd0};
      DwMem: rdata_o = mem_q;
      DwPf: rdata_o = pf_q | 32'h0001_0001;  // 64-bit window
      DwPfBaseHi: rdata_o = pf_base_hi_q;
      DwPfLimitHi: rdata_o = pf_limit_hi_q;
      10'h00d: rdata_o = 32'h0000_0040;
      DwBridgeCtl: rdata_o = bridge_ctl_q;
      DwPcie: rdata_o = {8'h00, PortType, 4'h2, 16'h0010};
      10'h011: rdata_o = 32'h0000_8022;  // MPS 512, extended tag, role-based error reporting
      DwDevCtl: rdata_o = dev_ctl_q;
      10'h013: rdata_o = {PortNumber, 24'h00_0103};  // 8 GT/s, x16
      10'h014: rdata_o = 32'h0103_0000;
      10'h019: rdata_o = 32'h0001_0000;  // 10-Bit Tag Completer
      10'h01b: rdata_o = 32'h0000_000e;
      10'h01c: rdata_o = 32'h0000_0003;
      DwAcs: rdata_o = HasAcs ? 32'h0001_000d : '0;
      DwAcsCtl: rdata_o = HasAcs ? {9'd0, acs_ctl_q, 8'(NumPeers), 1'b0, AcsCapable} : '0;
      DwAcsEgress: rdata_o = egress_q;
      default: rdata_o = '0;
    endcase
  end

  assign cfg_o = '{
    mem_en: command_q[1],
    master_en: command_q[2],
    secondary: bus_q[15:8],
    subordinate: bus_q[23:16],
    mem_base: {mem_q[15:4], 20'h0_0000},
    mem_limit: {mem_q[31:20], 20'hf_ffff},
    pf_base: {pf_base_hi_q, pf_q[15:4], 20'h0_0000},
    pf_limit: {pf_limit_hi_q, pf_q[31:20], 20'hf_ffff},
    mps: dev_ctl_q[7:5],
    mrrs: dev_ctl_q[14:12],
    acs: '{
      egress: egress_q,
      ec: acs_ctl_q[5],
      uf: acs_ctl_q[4],
      cr: acs_ctl_q[3],
      rr: acs_ctl_q[2],
      sv: acs_ctl_q[0]
    }
  };

endmodule
