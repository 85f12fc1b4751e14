// SPDX-License-Identifier: MIT OR Apache-2.0

/// Translates the address of a virtual interrupt file with a flat MSI page table (IOMMU §2.3.3).
/// MSI PTEs are not cached. One walk at a time; `start_valid_i` is only given while no walk is
/// under way.
module iommu_msi_walker
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
    /// msiptp.PPN.
    input logic [43:0] root_ppn_i,
    /// msi_addr_mask.
    input logic [51:0] mask_i,
    /// Address bits 63:12; the address has matched mask and pattern.
    input logic [51:0] page_i,
    /// Access, for permissions.
    input tr_req_t req_i,
    /// fctl.BE.
    input logic be_i,
    /// The walk has ended, one cycle.
    output logic done_valid_o,
    /// Fault, or CauseNone.
    output cause_t done_cause_o,
    /// Where the entry leads when there is no fault.
    output msi_t done_msi_o,

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
    /// The entry.
    input logic [127:0] mem_rsp_pte_i
);
  // Bits of the mask worked off in a cycle; 52 is a multiple of it.
  localparam int unsigned ExtractStep = 4;

  typedef enum logic [2:0] { StIdle, StExtract, StReq, StRsp, StDone } state_e;
  state_e state_q, state_d;
  logic [51:0] mask_q, page_q, file_q, file_d;
  logic [5:0] left_q, left_d;
  logic [43:0] root_q;
  msi_t msi_q, msi;
  tr_req_t req_q;
  cause_t cause_q, cause_d;

  // extract(): the page bits under the mask, packed, from the top downwards.
  always_comb begin
    file_d = file_q;
    for (int i = 51; i > 51 - int'(ExtractStep); i--) begin
      if (mask_q[i]) file_d = {file_d[50:0], page_q[i]};
    end
  end

  // Entry (AIA, "MSI page tables"). In basic mode the second doubleword is ignored.
  logic [63:0] dw0, dw1;
  logic swap, mrif, malformed;
  assign swap = big_endian(Cfg, be_i);
  assign dw0 = swap ? swap_bytes(mem_rsp_pte_i[63:0]) : mem_rsp_pte_i[63:0];
  assign dw1 = swap ? swap_bytes(mem_rsp_pte_i[127:64]) : mem_rsp_pte_i[127:64];
  assign mrif = Cfg.msi_mrif && dw0[2:1] == 2'd1;
  // C = 1 is implementation-defined: it counts as misconfigured.
  assign malformed = mrif ?
      (dw0[6:3] != '0 || dw0[63:54] != '0 || dw1[63:61] != '0 || dw1[59:54] != '0) :
      (dw0[2:1] != 2'd3 || dw0[9:3] != '0 || dw0[63:54] != '0);
  assign msi = '{
      mrif: mrif,
      ppn: Cfg.msi_address_clipped ? clip(Cfg, dw0[53:10]) : dw0[53:10],
      mrif_addr: Cfg.msi_mrif ? dw0[53:7] : '0,
      notice_ppn: Cfg.msi_mrif ? dw1[53:10] : '0,
      notice_id: Cfg.msi_mrif ? {dw1[60], dw1[9:0]} : '0
  };

  assign mem_valid_o = state_q == StReq;
  assign mem_req_o = '{
      rcid: '0,
      mcid: '0,
      pbmt: '0,
      op: MemRead,
      addr: {root_q, 12'd0} | {file_q, 4'd0},
      len_dw: 5'd4,
      wdata: '0
  };

  always_comb begin
    state_d = state_q;
    cause_d = cause_q;
    left_d = left_q - 6'(ExtractStep);
    unique case (state_q)
      StIdle: begin
        left_d = 6'd52;
        if (start_valid_i) state_d = StExtract;
      end
      StExtract: begin
        if (left_d == '0) state_d = StReq;
      end
      StReq: begin
        if (mem_ready_i) state_d = StRsp;
      end
      StRsp: begin
        if (mem_rsp_valid_i) begin
          state_d = StDone;
          if (mem_rsp_error_i) cause_d = CauseMsiPteAccess;
          else if (mem_rsp_poison_i) cause_d = CauseMsiPtCorrupt;
          else if (!dw0[0]) cause_d = CauseMsiPteInvalid;
          else if (malformed) cause_d = CauseMsiPteMisconfig;
          else if (is_exec(req_q.ttyp)) cause_d = CauseInstrAccess;
          else if (!Cfg.msi_address_clipped && !mrif && beyond_pas(Cfg, {8'd0, msi.ppn}))
            cause_d = access_fault(access_type(Cfg, req_q));
          else cause_d = CauseNone;
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
    left_q <= left_d;
    cause_q <= cause_d;
    if (start_valid_i) begin
      root_q <= root_ppn_i;
      mask_q <= mask_i;
      page_q <= page_i;
      req_q <= req_i;
      file_q <= '0;
    end else if (state_q == StExtract) begin
      mask_q <= mask_q << ExtractStep;
      page_q <= page_q << ExtractStep;
      file_q <= file_d;
    end
    if (mem_rsp_valid_i) msi_q <= msi;
  end

  assign done_valid_o = state_q == StDone;
  assign done_cause_o = cause_q;
  assign done_msi_o = msi_q;

  logic unused;
  assign unused = ^{dw1, be_i, req_q};  // without MSI_MRIF and END

  assert property (@(posedge clk_i) disable iff (!rst_ni) !start_valid_i || state_q == StIdle);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !mem_rsp_valid_i || state_q == StRsp);
endmodule
