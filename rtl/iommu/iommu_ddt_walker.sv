// SPDX-License-Identifier: MIT OR Apache-2.0

/// Locates the device context of a device (IOMMU §2.3.1) and checks it (§2.1.4). One walk at a
/// time; `start_valid_i` is only given while no walk is under way.
module iommu_ddt_walker
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Begin a walk.
    input logic start_valid_i,
    /// 1LVL, 2LVL or 3LVL.
    input ddt_mode_e mode_i,
    /// ddtp.PPN.
    input logic [43:0] root_ppn_i,
    /// The device; its width has been checked against the mode.
    input logic [23:0] device_id_i,
    /// The walk has ended, one cycle.
    output logic done_valid_o,
    /// Fault, or CauseNone.
    output cause_t done_cause_o,
    /// The context when there is no fault.
    output dc_t done_dc_o,

    /// Memory request.
    output logic mem_valid_o,
    /// Memory request taken.
    input logic mem_ready_i,
    /// Memory request.
    output mem_req_t mem_req_o,
    /// Response beat for this client.
    input logic mem_rsp_valid_i,
    /// Last beat.
    input logic mem_rsp_last_i,
    /// Access fault.
    input logic mem_rsp_error_i,
    /// Data corrupt.
    input logic mem_rsp_poison_i,
    /// The data.
    input logic [255:0] mem_rsp_data_i
);
  // Device contexts are 2^DcShift bytes; DDI[0] takes the rest of a page (IOMMU §2.1).
  localparam int unsigned DcShift = Cfg.msi_flat ? 6 : 5;
  localparam int unsigned Ddi0W = 12 - DcShift;

  typedef enum logic [1:0] { StIdle, StReq, StRsp, StDone } state_e;
  state_e state_q, state_d;
  logic [1:0] level_q, level_d;
  logic [43:0] ppn_q, ppn_d;
  logic [23:0] did_q;
  logic error_q, poison_q, error, poison, last;
  logic beat_q;
  logic [255:0] lo_q;
  cause_t cause_q, cause_d;
  dc_t dc_q, dc_d;

  // Index of the entry at this level and its byte offset.
  logic [11:0] offset;
  always_comb begin
    unique case (level_q)
      2'd2:    offset = 12'({did_q[23:Ddi0W+9], 3'b000});
      2'd1:    offset = {did_q[Ddi0W+8:Ddi0W], 3'b000};
      default: offset = {did_q[Ddi0W-1:0], {DcShift{1'b0}}};
    endcase
  end

  assign mem_valid_o = state_q == StReq;
  assign mem_req_o = '{
      rcid: '0,
      mcid: '0,
      pbmt: '0,
      op: MemRead,
      addr: {ppn_q, offset},
      len_dw: level_q != 2'd0 ? 5'd2 : Cfg.msi_flat ? 5'd16 : 5'd8,
      wdata: '0
  };

  // Errors may be on any beat of the answer.
  assign error = error_q | mem_rsp_error_i;
  assign poison = poison_q | mem_rsp_poison_i;
  assign last = mem_rsp_valid_i && mem_rsp_last_i;

  logic [511:0] dc_raw;
  assign dc_raw = (Cfg.msi_flat && beat_q) ? {mem_rsp_data_i, lo_q} : {256'd0, mem_rsp_data_i};

  // Device context as read (IOMMU §2.1.3).
  logic [63:0] tc, iohgatp, ta, fsc, msiptp, msi_mask, msi_pattern, dc_rsvd;
  assign {dc_rsvd, msi_pattern, msi_mask, msiptp, fsc, ta, iohgatp, tc} = dc_raw;

  // Bare ignores the rest of iohgatp.
  logic [59:0] unused_iohgatp;
  assign unused_iohgatp = iohgatp[59:0];

  // IOMMU §2.1.4 with the capabilities of this IOMMU: no ATS, PDT, second stage, hardware A/D
  // update, QoS IDs, RV32 schemes or big-endian structures. tc bits 31:24 are custom.
  logic tc_bad, fsc_bad, ta_bad, msi_bad, s1_mode_ok;
  assign tc_bad = tc[63:32] != '0 || tc[23:12] != '0 ||
                  tc[1] || tc[2] || tc[3] || tc[6] ||  // EN_ATS, EN_PRI, T2GPA, PRPR
                  tc[7] || tc[8] ||                    // GADE, SADE
                  (tc[9] && !tc[5]) ||                 // DPE without PDTV
                  tc[10] || tc[11];                    // SBE, SXL
  assign s1_mode_ok = fsc[63:60] == 4'd0 || fsc[63:60] == 4'd8 ||
                      (Cfg.sv48 && fsc[63:60] == 4'd9) || (Cfg.sv57 && fsc[63:60] == 4'd10);
  // With PDTV only pdtp.MODE Bare is left.
  assign fsc_bad = fsc[59:44] != '0 || (tc[5] ? fsc[63:60] != 4'd0 : !s1_mode_ok);
  assign ta_bad = ta[11:0] != '0 || ta[63:32] != '0;
  assign msi_bad = Cfg.msi_flat && (msiptp[63:60] > 4'd1 || msiptp[59:44] != '0 ||
                               msi_mask[63:52] != '0 || msi_pattern[63:52] != '0 ||
                               dc_rsvd != '0);
  logic misconfigured;
  assign misconfigured = level_q != 2'd0 ?
      (tc[9:1] != '0 || tc[63:54] != '0) :  // non-leaf entry: reserved bits only
      (tc_bad || iohgatp[63:60] != 4'd0 || ta_bad || fsc_bad || msi_bad);

  always_comb begin
    dc_d = '0;
    dc_d.dtf = tc[4];
    dc_d.pdtv = tc[5];
    unique case (fsc[63:60])
      4'd8:    dc_d.s1_mode = PtSv39;
      4'd9:    dc_d.s1_mode = PtSv48;
      4'd10:   dc_d.s1_mode = PtSv57;
      default: dc_d.s1_mode = PtBare;
    endcase
    dc_d.fsc_ppn = fsc[43:0];
    dc_d.pscid = ta[31:12];
    if (Cfg.msi_flat) begin
      dc_d.msi_en = msiptp[63:60] == 4'd1;
      dc_d.msi_ppn = msiptp[43:0];
      dc_d.msi_mask = msi_mask[51:0];
      dc_d.msi_pattern = msi_pattern[51:0];
    end
  end

  always_comb begin
    state_d = state_q;
    level_d = level_q;
    ppn_d = ppn_q;
    cause_d = cause_q;
    unique case (state_q)
      StIdle: begin
        if (start_valid_i) begin
          state_d = StReq;
          level_d = mode_i == Ddt3Lvl ? 2'd2 : mode_i == Ddt2Lvl ? 2'd1 : 2'd0;
          ppn_d = root_ppn_i;
        end
      end
      StReq: begin
        if (mem_ready_i) state_d = StRsp;
      end
      StRsp: begin
        if (last) begin
          state_d = StDone;
          if (error) cause_d = CauseDdtAccess;
          else if (poison) cause_d = CauseDdtCorrupt;
          else if (!tc[0]) cause_d = CauseDdtInvalid;
          else if (misconfigured) cause_d = CauseDdtMisconfig;
          else begin
            cause_d = CauseNone;
            if (level_q != 2'd0) begin
              state_d = StReq;
              level_d = level_q - 2'd1;
              ppn_d = tc[53:10];
            end
          end
        end
      end
      default: state_d = StIdle;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      error_q <= 1'b0;
      poison_q <= 1'b0;
      beat_q <= 1'b0;
    end else begin
      state_q <= state_d;
      error_q <= mem_rsp_valid_i ? error && !last : error_q;
      poison_q <= mem_rsp_valid_i ? poison && !last : poison_q;
      beat_q <= mem_rsp_valid_i ? !last : beat_q;
    end
  end
  always_ff @(posedge clk_i) begin
    level_q <= level_d;
    ppn_q <= ppn_d;
    cause_q <= cause_d;
    if (start_valid_i) did_q <= device_id_i;
    if (mem_rsp_valid_i) begin
      if (!beat_q) lo_q <= mem_rsp_data_i;
      dc_q <= dc_d;
    end
  end

  assign done_valid_o = state_q == StDone;
  assign done_cause_o = cause_q;
  assign done_dc_o = dc_q;

  assert property (@(posedge clk_i) disable iff (!rst_ni) !start_valid_i || state_q == StIdle);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !mem_rsp_valid_i || state_q == StRsp);
endmodule
