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
    /// fctl.BE.
    input logic be_i,
    /// fctl.GXL.
    input logic gxl_i,
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

  // A non-leaf entry is the first doubleword.
  logic [63:0] entry;
  logic unused_v;
  assign unused_v = entry[0];
  logic dc_valid, dc_misconfigured, valid, misconfigured;
  assign entry = big_endian(Cfg, be_i) ? swap_bytes(dc_raw[63:0]) : dc_raw[63:0];
  iommu_dc_check #(
      .Cfg(Cfg)
  ) u_check (
      .raw_i          (dc_raw),
      .be_i,
      .gxl_i,
      .valid_o        (dc_valid),
      .misconfigured_o(dc_misconfigured),
      .dc_o           (dc_d)
  );
  assign valid = dc_valid;  // V is bit 0 of either
  assign misconfigured = level_q != 2'd0 ? (entry[9:1] != '0 || entry[63:54] != '0)
                                         : dc_misconfigured;

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
          else if (!valid) cause_d = CauseDdtInvalid;
          else if (misconfigured) cause_d = CauseDdtMisconfig;
          else begin
            cause_d = CauseNone;
            if (level_q != 2'd0) begin
              state_d = StReq;
              level_d = level_q - 2'd1;
              ppn_d = entry[53:10];
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
