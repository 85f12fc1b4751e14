// SPDX-License-Identifier: MIT OR Apache-2.0

/// The second stage: translates guest physical pages for the front and for the walkers of the first
/// stage and of the process directory. A translation that is held is answered in the cycle in which
/// it is asked for; a missing one is walked and then held. Without a second stage a guest page is a
/// physical page.
module iommu_s2
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase,
    /// Translations held.
    parameter int unsigned Entries = 32,
    /// Non-leaf entries held, 0 for none.
    parameter int unsigned WalkEntries = 0
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Device context of the request; stable while valid.
    input dc_t dc_i,
    /// fctl.BE.
    input logic be_i,
    /// Translate; held, with what follows, until done.
    input logic valid_i,
    /// Guest page: address bits 63:12.
    input logic [51:0] page_i,
    /// Access.
    input acc_t acc_i,
    /// Done, one cycle.
    output logic done_o,
    /// Result. With PtBare the leaf is one of the largest size that permits everything.
    output s2_rsp_t rsp_o,
    /// What is found may be held.
    input logic may_fill_i,
    /// A walk begins, one cycle.
    output logic walk_o,

    /// Invalidate, one cycle.
    input logic inval_valid_i,
    /// What to invalidate.
    input iotlb_inval_t inval_i,

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
  localparam bit Exists = Cfg.sv32x4 || Cfg.sv39x4 || Cfg.sv48x4 || Cfg.sv57x4;

  leaf_t flat;
  s2_rsp_t bare;
  always_comb begin
    flat = '0;
    flat.size = Pg256T;
    {flat.r, flat.w, flat.x, flat.u} = '1;
    flat.ppn = page_i[43:0];
    bare.leaf = flat;
    bare.result = WkOk;
  end

  if (Exists) begin : gen_s2
    logic walking_q, is_bare, too_wide, hit, permitted, start, done, fill;
    leaf_t tlb_leaf, leaf;
    walk_e result;
    acc_t acc;

    assign is_bare = dc_i.s2_mode == PtBare;
    // All bits above the scheme's are 0 (privileged specification, Sv39x4 and others); with SXL
    // there are no more than 34 (IOMMU §2.1.3).
    always_comb begin
      unique case (dc_i.s2_mode)
        PtSv57:  too_wide = page_i[51:47] != '0;
        PtSv48:  too_wide = page_i[51:38] != '0;
        PtSv39:  too_wide = page_i[51:29] != '0;
        default: too_wide = page_i[51:22] != '0;
      endcase
      if (dc_i.sxl && page_i[51:22] != '0) too_wide = 1'b1;
      acc = acc_i;
      acc.priv = 1'b0;
    end

    // As in the first stage a fault is only ever found in memory.
    assign permitted = hit && leaf_permits(Cfg, tlb_leaf, acc);
    assign start = valid_i && !is_bare && !too_wide && !permitted && !walking_q;
    assign walk_o = start;
    assign fill = walking_q && done && result == WkOk && may_fill_i;

    always_comb begin
      done_o = valid_i && !walking_q && (is_bare || too_wide || permitted);
      rsp_o = '{result: WkOk, leaf: tlb_leaf};
      if (walking_q) begin
        done_o = done;
        rsp_o = '{result: result, leaf: leaf};
      end else if (is_bare) begin
        rsp_o = bare;
      end else if (too_wide) begin
        rsp_o.result = WkPage;
      end
    end

    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) walking_q <= 1'b0;
      else walking_q <= start || (walking_q && !done);
    end

    iommu_iotlb #(
        .Entries(Entries),
        .Stage2 (1'b1),
        .PageW  (47),
        .Guests (1'b1)
    ) u_tlb (
        .clk_i,
        .rst_ni,
        .guest_i      (1'b1),
        .gscid_i      (dc_i.gscid),
        .pscid_i      ('0),
        .page_i       (page_i[46:0]),
        .used_i       (valid_i && !walking_q && !is_bare && !too_wide && permitted),
        .hit_o        (hit),
        .leaf_o       (tlb_leaf),
        .fill_valid_i (fill),
        .fill_leaf_i  (leaf),
        .inval_valid_i(inval_valid_i),
        .inval_i      (inval_i)
    );

    logic unused_s2_valid, unused_s2_write, unused_gpa_write;
    logic [43:0] unused_s2_page;
    logic [55:2] unused_gpa;
    iommu_pt_walker #(
        .Cfg   (Cfg),
        .Stage2(1'b1),
        .WalkEntries(WalkEntries)
    ) u_walker (
        .clk_i,
        .rst_ni,
        .start_valid_i   (start),
        .mode_i          (dc_i.s2_mode),
        .root_ppn_i      (dc_i.s2_ppn),
        .page_i          (page_i[46:0]),
        .acc_i           (acc),
        .ade_i           (dc_i.gade),
        .be_i,
        .guest_i         (1'b1),
        .gscid_i         (dc_i.gscid),
        .pscid_i         ('0),
        .may_fill_i,
        .inval_valid_i,
        .inval_i,
        .s2_valid_o      (unused_s2_valid),
        .s2_page_o       (unused_s2_page),
        .s2_write_o      (unused_s2_write),
        .s2_done_i       (1'b0),
        .s2_rsp_i        ('0),
        .done_valid_o    (done),
        .done_result_o   (result),
        .done_leaf_o     (leaf),
        .done_gpa_o      (unused_gpa),
        .done_gpa_write_o(unused_gpa_write),
        .mem_valid_o,
        .mem_ready_i,
        .mem_req_o,
        .mem_rsp_valid_i,
        .mem_rsp_error_i,
        .mem_rsp_poison_i,
        .mem_rsp_pte_i
    );

    // The request is stable while it is walked for.
    assert property (@(posedge clk_i) disable iff (!rst_ni)
        !walking_q || (valid_i && $stable(page_i) && $stable(acc_i)));
  end else begin : gen_no_s2
    assign done_o = valid_i;
    assign rsp_o = bare;
    assign walk_o = 1'b0;
    assign mem_valid_o = 1'b0;
    assign mem_req_o = '0;
  end

  logic unused;
  assign unused = ^{clk_i, rst_ni, dc_i, be_i, page_i, acc_i, may_fill_i, inval_valid_i, inval_i, mem_ready_i,
                    mem_rsp_valid_i, mem_rsp_error_i, mem_rsp_poison_i, mem_rsp_pte_i};
endmodule
