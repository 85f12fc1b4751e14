// SPDX-License-Identifier: MIT OR Apache-2.0

/// Debug translation (IOMMU §4, §5.24 to §5.26): registers tr_req_iova, tr_req_ctl and tr_response,
/// and the request that Go makes. If it asks for execution and for a write, `debug_execute_wins`
/// decides; with neither it is a read.
module iommu_dbg
  import iommu_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgFull
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Register accessed: byte offset in doublewords.
    input logic [8:0] reg_no_i,
    /// Write of its low half.
    input logic wr_lo_i,
    /// Write of its high half.
    input logic wr_hi_i,
    /// Write data.
    input logic [63:0] wdata_i,
    /// Its value, 0 if it is none of these.
    output logic [63:0] rdata_o,

    /// Request; ready/valid, stable until taken.
    output logic req_valid_o,
    /// Taken.
    input logic req_ready_i,
    /// Request.
    output tr_req_t req_o,
    /// Answer; valid only.
    input logic rsp_valid_i,
    /// Answer.
    input tr_rsp_t rsp_i
);
  localparam logic [8:0] RegIova = 9'd75;
  localparam logic [8:0] RegCtl = 9'd76;
  localparam logic [8:0] RegRsp = 9'd77;

  logic [63:12] vpn_q;
  logic busy_q, asked_q, priv_q, exec_q, no_write_q, pid_valid_q;
  logic [19:0] process_id_q;
  logic [23:0] device_id_q;
  logic fault_q, large_q;
  logic [1:0] pbmt_q;
  logic [43:0] ppn_q;

  // A range larger than a page: ones below the highest bit of the offset, which is 0.
  logic [43:0] inside_range;
  logic spans;
  assign spans = Cfg.debug_superpages && rsp_i.size_log2 > 6'd12;
  assign inside_range = spans ? (44'd1 << (rsp_i.size_log2 - 6'd12)) - 44'd1 : '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      asked_q <= 1'b0;
      vpn_q <= '0;
      {priv_q, exec_q, no_write_q, pid_valid_q} <= '0;
      process_id_q <= '0;
      device_id_q <= '0;
      {fault_q, large_q, pbmt_q} <= '0;
      ppn_q <= '0;
    end else begin
      // Writes while busy are ignored.
      if (reg_no_i == RegIova && !busy_q) begin
        if (wr_lo_i) vpn_q[31:12] <= wdata_i[31:12];
        if (wr_hi_i) vpn_q[63:32] <= wdata_i[63:32];
      end
      if (reg_no_i == RegCtl && !busy_q) begin
        if (wr_lo_i) begin
          {no_write_q, exec_q, priv_q} <= wdata_i[3:1];
          process_id_q <= wdata_i[31:12];
          busy_q <= wdata_i[0];
          asked_q <= 1'b0;
        end
        if (wr_hi_i) begin
          pid_valid_q <= wdata_i[32];
          device_id_q <= wdata_i[63:40];
        end
      end
      if (req_valid_o && req_ready_i) asked_q <= 1'b1;
      if (rsp_valid_i) begin
        busy_q <= 1'b0;
        fault_q <= rsp_i.status != TrOk;
        pbmt_q <= rsp_i.pbmt;
        large_q <= spans;
        ppn_q <= (rsp_i.spa[55:12] & ~inside_range) | inside_range >> 1;
        if (rsp_i.status != TrOk) {large_q, pbmt_q, ppn_q} <= '0;
      end
    end
  end

  assign req_valid_o = busy_q && !asked_q;
  assign req_o = '{
      no_write: 1'b0,
      ats_exec: 1'b0,
      ttyp: exec_q && (Cfg.debug_execute_wins || no_write_q) ? TtUntransRx : no_write_q ? TtUntransRd : TtUntransWr,
      device_id: device_id_q,
      pid_valid: pid_valid_q,
      process_id: pid_valid_q ? process_id_q : '0,
      priv: pid_valid_q && priv_q,
      iova: {vpn_q, 12'd0},
      tag: '0
  };

  always_comb begin
    unique case (reg_no_i)
      RegIova: rdata_o = {vpn_q, 12'd0};
      RegCtl:  rdata_o = {device_id_q, 7'd0, pid_valid_q, process_id_q, 8'd0, no_write_q, exec_q,
                          priv_q, busy_q};
      RegRsp:  rdata_o = {10'd0, ppn_q, large_q, pbmt_q, 6'd0, fault_q};
      default: rdata_o = '0;
    endcase
  end

  logic unused;
  assign unused = ^{rsp_i, wdata_i};

  assert property (@(posedge clk_i) disable iff (!rst_ni) !rsp_valid_i || (busy_q && asked_q));
endmodule
