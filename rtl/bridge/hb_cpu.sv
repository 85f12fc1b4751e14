// SPDX-License-Identifier: MIT OR Apache-2.0

/// The CPU port: one access at a time becomes an access to a function on bus 0, to the IOMMU's
/// registers, or a TLP down a root port; what nobody claims is an unsupported request. A read and a
/// configuration write wait for their completion, or time out.
///
/// Handshake kinds: ready/valid for the request and the TLPs, valid only for the responses.
module hb_cpu #(
  /// Beat type of the TLPs.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Root ports.
  parameter int unsigned NumRp = 2,
  /// Cycles until a missing completion is given up (PCIe 6.0 §2.8).
  parameter int unsigned CplTimeout = 2 ** 18,
  localparam int unsigned PortW = (NumRp > 1) ? $clog2(NumRp) : 1
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,
  /// PMA table.
  input mem_pkg::pma_region_t [7:0] pma_i,
  /// Bus address = CPU physical address - offset inside `PmaPcie` regions.
  input logic [63:0] bus_offset_i,
  /// There is an IOMMU.
  input logic iommu_enable_i,
  /// Its registers are enabled.
  input logic iommu_mem_enable_i,
  /// Their base.
  input logic [63:12] iommu_bar_i,
  /// Configuration of the root ports.
  input port_pkg::port_cfg_t [NumRp-1:0] rp_cfg_i,

  /// A request.
  input logic cpu_req_valid_i,
  /// It is taken.
  output logic cpu_req_ready_o,
  /// 1 write.
  input logic cpu_req_write_i,
  /// Configuration access.
  input logic cpu_req_cfg_i,
  /// Byte address, or ECAM offset.
  input logic [63:0] cpu_req_addr_i,
  /// Byte enables of the 8 bytes around the address.
  input logic [7:0] cpu_req_be_i,
  /// Data of a write.
  input logic [63:0] cpu_req_wdata_i,
  /// The response, one cycle.
  output logic cpu_rsp_valid_o,
  /// Data of a read.
  output logic [63:0] cpu_rsp_rdata_o,
  /// 0 done, 1 UR, 2 CA, 3 timeout.
  output logic [1:0] cpu_rsp_status_o,

  /// Device and Function Number of an access on bus 0.
  output logic [7:0] cfg_devfn_o,
  /// There is such a function.
  input logic cfg_present_i,
  /// Write it.
  output logic cfg_write_o,
  /// DW number of the register.
  output logic [9:0] cfg_dw_o,
  /// Byte enables.
  output logic [3:0] cfg_be_o,
  /// Data of a write.
  output logic [31:0] cfg_wdata_o,
  /// The register.
  input logic [31:0] cfg_rdata_i,

  /// Access to the IOMMU's registers, one cycle.
  output logic reg_req_valid_o,
  /// 1 write.
  output logic reg_req_write_o,
  /// Byte offset.
  output logic [11:0] reg_req_addr_o,
  /// Byte enables.
  output logic [7:0] reg_req_be_o,
  /// Data of a write.
  output logic [63:0] reg_req_wdata_o,
  /// The answer.
  input logic reg_rsp_valid_i,
  /// Data of a read.
  input logic [63:0] reg_rsp_rdata_i,

  /// A TLP of one beat, `tx_posted_o` tells its class.
  output logic tx_valid_o,
  /// It is taken.
  input logic tx_take_i,
  /// Memory write.
  output logic tx_posted_o,
  /// The root port.
  output logic [PortW-1:0] tx_port_o,
  /// The TLP.
  output beat_t tx_beat_o,

  /// A completion for the CPU, always accepted.
  input logic cpl_valid_i,
  /// Its beat.
  input beat_t cpl_beat_i,

  /// An access is under way.
  output logic busy_o
);

  import tlp_pkg::*;

  typedef enum logic [2:0] { StIdle, StDecode, StReg, StSend, StWait, StDone } state_e;

  localparam int unsigned TimerW = $clog2(CplTimeout + 1);

  state_e state_q;
  logic write_q;
  logic cfg_q;
  logic [63:3] addr_q;
  logic [7:0] be_q;
  logic [63:0] wdata_q;
  logic [PortW-1:0] port_q;
  tlp_hdr_t hdr_q;
  logic high_q;  // the only DW of the access is the upper one
  logic [7:0] tag_q;
  logic [TimerW-1:0] timer_q;
  logic [63:0] rdata_q;
  logic [1:0] status_q;

  // Decoding.
  logic two;
  logic high;
  logic [31:0] wdata_dw;
  logic [63:0] addr;
  logic [63:0] bus_addr;
  logic in_aperture;
  logic reg_hit;
  logic local_cfg;
  logic hit;
  logic [PortW-1:0] hit_port;
  logic type1;
  tlp_hdr_t hdr;

  logic unused;
  assign unused = ^cpu_req_addr_i[2:0];  // the byte enables say it

  assign two = be_q[3:0] != '0 && be_q[7:4] != '0;
  assign high = be_q[3:0] == '0 && be_q[7:4] != '0;
  assign wdata_dw = high ? wdata_q[63:32] : wdata_q[31:0];
  assign addr = {addr_q, high, 2'b00};
  assign in_aperture = addr[63:56] == '0
                       && bridge_pkg::pma_of(pma_i, addr[55:0]) == mem_pkg::PmaPcie;
  assign bus_addr = in_aperture ? addr - bus_offset_i : addr;
  assign reg_hit = !cfg_q && iommu_enable_i && iommu_mem_enable_i
                   && bus_addr[63:12] == iommu_bar_i;
  assign local_cfg = cfg_q && addr[63:20] == '0;

  always_comb begin
    hit = 1'b0;
    hit_port = '0;
    type1 = 1'b1;
    for (int unsigned p = 0; p < NumRp; p++) begin
      if (cfg_q) begin
        if (addr[63:28] == '0 && port_pkg::bus_below(rp_cfg_i[p], addr[27:20])) begin
          hit_port = PortW'(p);
          type1 = addr[27:20] != rp_cfg_i[p].secondary;
          // A link has one device, number 0 (PCIe 6.0 §7.3.1).
          hit = type1 || addr[19:15] == '0;
        end
      end else if (in_aperture && port_pkg::claims(rp_cfg_i[p], bus_addr)) begin
        hit_port = PortW'(p);
        hit = 1'b1;
      end
    end
    if (cfg_q) begin
      hdr = mk_cfg_hdr(write_q, type1, addr[27:12], addr[11:2], high ? be_q[7:4] : be_q[3:0],
                       bridge_pkg::BridgeId, {2'b00, tag_q});
    end else begin
      hdr = mk_mem_hdr(write_q, bus_addr, two ? 11'd2 : 11'd1, high ? be_q[7:4] : be_q[3:0],
                       two ? be_q[7:4] : 4'h0, bridge_pkg::BridgeId, {2'b00, tag_q}, 3'b000,
                       AtUntranslated, 3'd0);
    end
  end

  assign cfg_devfn_o = addr[19:12];
  assign cfg_write_o = state_q == StDecode && local_cfg && cfg_present_i && write_q;
  assign cfg_dw_o = addr[11:2];
  assign cfg_be_o = high ? be_q[7:4] : be_q[3:0];
  assign cfg_wdata_o = wdata_dw;

  assign reg_req_valid_o = state_q == StDecode && reg_hit;
  assign reg_req_write_o = write_q;
  assign reg_req_addr_o = {addr_q[11:3], 3'b000};
  assign reg_req_be_o = be_q;
  assign reg_req_wdata_o = wdata_q;

  assign tx_valid_o = state_q == StSend;
  assign tx_posted_o = !cfg_q && write_q;
  assign tx_port_o = port_q;

  always_comb begin
    tx_beat_o = '0;
    tx_beat_o.sop = 1'b1;
    tx_beat_o.eop = 1'b1;
    tx_beat_o.head.hdr = hdr_q;
    tx_beat_o.data[63:0] = high_q ? {32'd0, wdata_q[63:32]} : wdata_q;
  end

  // At most 8 bytes were asked for: a completion has one beat. One that is not, or no longer, waited for is dropped.
  logic cpl_match;
  tlp_hdr_t cpl_hdr;
  assign cpl_hdr = cpl_beat_i.head.hdr;
  assign cpl_match = cpl_valid_i && cpl_beat_i.sop && cpl_beat_i.eop && cpl_tag(cpl_hdr) == {2'b00, tag_q};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      write_q <= 1'b0;
      cfg_q <= 1'b0;
      addr_q <= '0;
      be_q <= '0;
      wdata_q <= '0;
      port_q <= '0;
      hdr_q <= '0;
      high_q <= 1'b0;
      tag_q <= '0;
      timer_q <= '0;
      rdata_q <= '0;
      status_q <= '0;
    end else begin
      unique case (state_q)
        StIdle: begin
          if (cpu_req_valid_i) begin
            state_q <= StDecode;
            write_q <= cpu_req_write_i;
            cfg_q <= cpu_req_cfg_i;
            addr_q <= cpu_req_addr_i[63:3];
            // An access without enabled bytes is one to the DW of its address.
            be_q <= cpu_req_be_i;
            wdata_q <= cpu_req_wdata_i;
          end
        end
        StDecode: begin
          port_q <= hit_port;
          hdr_q <= hdr;
          high_q <= high;
          status_q <= 2'd0;
          rdata_q <= '1;
          if (local_cfg) begin
            state_q <= StDone;
            if (cfg_present_i) rdata_q <= {2{cfg_rdata_i}};
            else status_q <= 2'd1;
          end else if (reg_hit) begin
            state_q <= StReg;
          end else if (hit) begin
            state_q <= StSend;
          end else begin
            state_q <= StDone;
            status_q <= 2'd1;
          end
        end
        StReg: begin
          if (reg_rsp_valid_i) begin
            state_q <= StDone;
            rdata_q <= reg_rsp_rdata_i;
          end
        end
        StSend: begin
          timer_q <= '0;
          if (tx_take_i) state_q <= tx_posted_o ? StDone : StWait;
        end
        StWait: begin
          timer_q <= timer_q + TimerW'(1);
          if (cpl_match) begin
            state_q <= StDone;
            tag_q <= tag_q + 8'd1;
            unique case (cpl_status(cpl_hdr))
              CplSc: begin
                rdata_q <= high_q ? {cpl_beat_i.data[31:0], 32'd0} : cpl_beat_i.data[63:0];
              end
              CplCa: status_q <= 2'd2;
              default: status_q <= 2'd1;
            endcase
          end else if (timer_q == TimerW'(CplTimeout)) begin
            state_q <= StDone;
            tag_q <= tag_q + 8'd1;
            status_q <= 2'd3;
          end
        end
        default: state_q <= StIdle;
      endcase
    end
  end

  assign cpu_req_ready_o = state_q == StIdle;
  assign cpu_rsp_valid_o = state_q == StDone;
  assign cpu_rsp_rdata_o = rdata_q;
  assign cpu_rsp_status_o = status_q;
  assign busy_o = state_q != StIdle;

endmodule
