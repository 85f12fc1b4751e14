// SPDX-License-Identifier: MIT OR Apache-2.0

/// Locates the process context of a process (IOMMU §2.3.2) and checks it (§2.2.5). One walk at a
/// time; `start_valid_i` is only given while no walk is under way, and the context of the device is
/// stable until the walk has ended.
module iommu_pdt_walker
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
    /// Device context; pdtp.MODE is not Bare.
    input dc_t dc_i,
    /// The process; its width has been checked against the mode.
    input logic [19:0] process_id_i,
    /// Access, for guest page faults.
    input ttyp_e ttyp_i,
    /// The walk has ended, one cycle.
    output logic done_valid_o,
    /// Fault, or CauseNone.
    output cause_t done_cause_o,
    /// The context when there is no fault.
    output pc_t done_pc_o,
    /// Guest page that the second stage refused.
    output logic [43:0] done_page_o,
    /// Offset of the entry there.
    output logic [11:3] done_offset_o,

    /// Ask the second stage for a table; held until done.
    output logic s2_valid_o,
    /// Its guest page.
    output logic [43:0] s2_page_o,
    /// Answered, one cycle.
    input logic s2_done_i,
    /// Answer.
    input s2_rsp_t s2_rsp_i,

    /// Memory request.
    output logic mem_valid_o,
    /// Memory request taken.
    input logic mem_ready_i,
    /// Memory request.
    output mem_req_t mem_req_o,
    /// Response beat for this client.
    input logic mem_rsp_valid_i,
    /// Access fault.
    input logic mem_rsp_error_i,
    /// Data corrupt.
    input logic mem_rsp_poison_i,
    /// Entry: a non-leaf one in the low half, or a process context.
    input logic [127:0] mem_rsp_data_i
);
  typedef enum logic [2:0] { StIdle, StTable, StReq, StRsp, StDone } state_e;
  state_e state_q, state_d;
  logic [1:0] level_q, level_d, pbmt_q;
  logic [43:0] ppn_q, ppn_d, spa_q;
  cause_t cause_q, cause_d;
  pc_t pc_q;

  logic [11:0] offset;
  always_comb begin
    unique case (level_q)
      2'd2:    offset = {6'd0, process_id_i[19:17], 3'b000};
      2'd1:    offset = {process_id_i[16:8], 3'b000};
      default: offset = {process_id_i[7:0], 4'b0000};
    endcase
  end

  assign mem_valid_o = state_q == StReq;
  assign mem_req_o = '{
      rcid: '0,
      mcid: '0,
      pbmt: pbmt_q,
      op: MemRead,
      addr: {spa_q, offset},
      len_dw: level_q != 2'd0 ? 5'd2 : 5'd4,
      wdata: '0
  };
  assign s2_valid_o = state_q == StTable;
  assign s2_page_o = ppn_q;

  // DC.tc.SBE says how process directories are stored (IOMMU §2.10).
  logic [63:0] ta, fsc;
  logic swap;
  assign swap = big_endian(Cfg, dc_i.sbe);
  assign ta = swap ? swap_bytes(mem_rsp_data_i[63:0]) : mem_rsp_data_i[63:0];
  assign fsc = swap ? swap_bytes(mem_rsp_data_i[127:64]) : mem_rsp_data_i[127:64];

  logic mode_ok, misconfigured, wide;
  pt_mode_e s1_mode;
  always_comb begin
    {mode_ok, s1_mode} = s1_scheme(Cfg, dc_i.sxl, fsc[63:60]);
    // With a second stage these are guest addresses.
    wide = Cfg.wide_address == WideMisconfigured && dc_i.s2_mode == PtBare &&
           beyond_pas(Cfg, {8'd0, fsc[43:0]});
    misconfigured = level_q != 2'd0 ?
        (ta[9:1] != '0 || ta[63:54] != '0) :
        (ta[11:3] != '0 || ta[63:32] != '0 || fsc[59:44] != '0 || !mode_ok ||
         (fsc[63:60] != '0 && wide));
  end

  always_comb begin
    state_d = state_q;
    level_d = level_q;
    ppn_d = ppn_q;
    cause_d = cause_q;
    unique case (state_q)
      StIdle: begin
        if (start_valid_i) begin
          state_d = StTable;
          level_d = dc_i.pd_mode == Pd20 ? 2'd2 : dc_i.pd_mode == Pd17 ? 2'd1 : 2'd0;
          ppn_d = dc_i.fsc_ppn;
        end
      end
      StTable: begin
        if (s2_done_i) begin
          state_d = s2_rsp_i.result == WkOk ? StReq : StDone;
          unique case (s2_rsp_i.result)
            WkPage:  cause_d = guest_page_fault(ttyp_i);
            WkCorrupt: cause_d = CausePdtCorrupt;
            default: cause_d = CausePdtAccess;
          endcase
        end
      end
      StReq: if (mem_ready_i) state_d = StRsp;
      StRsp: begin
        if (mem_rsp_valid_i) begin
          state_d = StDone;
          if (mem_rsp_error_i) cause_d = CausePdtAccess;
          else if (mem_rsp_poison_i) cause_d = CausePdtCorrupt;
          else if (!ta[0]) cause_d = CausePdtInvalid;
          else if (misconfigured) cause_d = CausePdtMisconfig;
          else begin
            cause_d = CauseNone;
            if (level_q != 2'd0) begin
              state_d = StTable;
              level_d = level_q - 2'd1;
              ppn_d = ta[53:10];
            end
          end
        end
      end
      default: state_d = StIdle;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) state_q <= StIdle;
    else state_q <= state_d;
  end
  always_ff @(posedge clk_i) begin
    level_q <= level_d;
    ppn_q <= ppn_d;
    cause_q <= cause_d;
    if (state_q == StTable) begin
      spa_q <= leaf_ppn(s2_rsp_i.leaf, {8'd0, ppn_q});
      pbmt_q <= s2_rsp_i.leaf.pbmt;
    end
    if (mem_rsp_valid_i) begin
      pc_q <= '{
          ens: ta[1],
          sum: ta[2],
          pscid: ta[31:12],
          s1_mode: s1_mode,
          s1_ppn: fsc[43:0]
      };
    end
  end

  assign done_valid_o = state_q == StDone;
  assign done_cause_o = cause_q;
  assign done_pc_o = pc_q;
  assign done_page_o = ppn_q;
  assign done_offset_o = offset[11:3];

  logic unused;
  assign unused = ^{dc_i, s2_rsp_i.leaf};

  assert property (@(posedge clk_i) disable iff (!rst_ni) !start_valid_i || state_q == StIdle);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !mem_rsp_valid_i || state_q == StRsp);
endmodule
