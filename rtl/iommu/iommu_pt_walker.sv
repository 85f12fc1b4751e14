// SPDX-License-Identifier: MIT OR Apache-2.0

/// Walks a first-stage page table (privileged specification, "Virtual Address Translation
/// Process", with Svnapot and Svpbmt) with user privilege: supervisor privilege needs a process
/// context, and no process directory is implemented. A and D are not updated (SADE is 0). One walk
/// at a time; `start_valid_i` is only given while no walk is under way.
module iommu_pt_walker
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities; without Svpbmt PTE bits 62:61 are reserved.
    parameter iommu_cfg_t Cfg = CfgBase
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Begin a walk.
    input logic start_valid_i,
    /// Scheme, not PtBare.
    input pt_mode_e mode_i,
    /// Root page table.
    input logic [43:0] root_ppn_i,
    /// IOVA bits 56:12; the IOVA has been found canonical.
    input logic [44:0] vpn_i,
    /// Access, for permissions and causes.
    input ttyp_e ttyp_i,
    /// The walk has ended, one cycle.
    output logic done_valid_o,
    /// Fault, or CauseNone.
    output cause_t done_cause_o,
    /// The leaf when there is no fault.
    output leaf_t done_leaf_o,

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
    input logic [63:0] mem_rsp_pte_i
);
  typedef enum logic [1:0] { StIdle, StReq, StRsp, StDone } state_e;

  /// Page table entry (privileged specification, Sv39 to Sv57).
  typedef struct packed {
    logic        n;
    logic [1:0]  pbmt;
    logic [6:0]  rsvd;
    logic [43:0] ppn;
    logic [1:0]  rsw;
    logic        d;
    logic        a;
    logic        g;
    logic        u;
    logic        x;
    logic        w;
    logic        r;
    logic        v;
  } pte_t;

  state_e state_q, state_d;
  logic [2:0] level_q, level_d;
  logic [43:0] ppn_q, ppn_d;
  logic global_q, global_d;
  logic [44:0] vpn_q;
  ttyp_e ttyp_q;
  cause_t cause_q, cause_d;
  leaf_t leaf_q, leaf;
  pte_t pte;

  assign pte = pte_t'(mem_rsp_pte_i);

  logic [8:0] index;
  always_comb begin
    unique case (level_q)
      3'd4:    index = vpn_q[44:36];
      3'd3:    index = vpn_q[35:27];
      3'd2:    index = vpn_q[26:18];
      3'd1:    index = vpn_q[17:9];
      default: index = vpn_q[8:0];
    endcase
  end

  assign mem_valid_o = state_q == StReq;
  assign mem_req_o = '{
      rcid: '0,
      mcid: '0,
      pbmt: '0,
      op: MemRead,
      addr: {ppn_q, index, 3'b000},
      len_dw: 5'd2,
      wdata: '0
  };

  always_comb begin
    leaf = '0;
    unique case (level_q)
      3'd4:    leaf.size = Pg256T;
      3'd3:    leaf.size = Pg512G;
      3'd2:    leaf.size = Pg1G;
      3'd1:    leaf.size = Pg2M;
      default: leaf.size = pte.n ? Pg64K : Pg4K;
    endcase
    leaf.r = pte.r;
    leaf.w = pte.w && pte.d;
    leaf.x = pte.x;
    leaf.global_map = global_q || pte.g;
    leaf.pbmt = pte.pbmt;
    leaf.ppn = pte.ppn;
  end

  // Each ends in the same page fault, so that their order is not visible.
  logic malformed, pointer, pointer_bad, leaf_bad;
  logic [43:0] offset_mask;
  assign offset_mask = 44'(page_mask(leaf.size));
  logic [1:0] unused_rsw;
  assign unused_rsw = pte.rsw;
  // xwr = 010 stays reserved for IO requests (IOMMU §2.3, on Zicfiss).
  assign malformed = !pte.v || (pte.w && !pte.r) || pte.rsvd != '0 || pte.pbmt == 2'd3 ||
                     (!Cfg.svpbmt && pte.pbmt != 2'd0);
  assign pointer = !pte.r && !pte.x;
  assign pointer_bad = level_q == 3'd0 || pte.a || pte.d || pte.u || pte.n || pte.pbmt != 2'd0;
  always_comb begin
    leaf_bad = !pte.u || !pte.a || !leaf_permits(leaf, ttyp_q);
    if (level_q != 3'd0) begin
      leaf_bad = leaf_bad || pte.n || (pte.ppn & offset_mask) != '0;  // superpage
    end else begin
      leaf_bad = leaf_bad || (pte.n && pte.ppn[3:0] != 4'b1000);  // 64 KiB is the only NAPOT size
    end
  end

  always_comb begin
    state_d = state_q;
    level_d = level_q;
    ppn_d = ppn_q;
    global_d = global_q;
    cause_d = cause_q;
    unique case (state_q)
      StIdle: begin
        if (start_valid_i) begin
          state_d = StReq;
          level_d = mode_i == PtSv57 ? 3'd4 : mode_i == PtSv48 ? 3'd3 : 3'd2;
          ppn_d = root_ppn_i;
          global_d = 1'b0;
        end
      end
      StReq: begin
        if (mem_ready_i) state_d = StRsp;
      end
      StRsp: begin
        if (mem_rsp_valid_i) begin
          state_d = StDone;
          if (mem_rsp_error_i) cause_d = access_fault(ttyp_q);
          else if (mem_rsp_poison_i) cause_d = CausePtCorrupt;
          else if (malformed || (pointer ? pointer_bad : leaf_bad)) cause_d = page_fault(ttyp_q);
          else begin
            cause_d = CauseNone;
            if (pointer) begin
              state_d = StReq;
              level_d = level_q - 3'd1;
              ppn_d = pte.ppn;
              global_d = global_q || pte.g;
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
    global_q <= global_d;
    cause_q <= cause_d;
    if (start_valid_i) begin
      vpn_q <= vpn_i;
      ttyp_q <= ttyp_i;
    end
    if (mem_rsp_valid_i) leaf_q <= leaf;
  end

  assign done_valid_o = state_q == StDone;
  assign done_cause_o = cause_q;
  assign done_leaf_o = leaf_q;

  assert property (@(posedge clk_i) disable iff (!rst_ni) !start_valid_i || state_q == StIdle);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !mem_rsp_valid_i || state_q == StRsp);
endmodule
