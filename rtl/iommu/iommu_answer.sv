// SPDX-License-Identifier: MIT OR Apache-2.0

/// The answer to a request whose translation has ended, from what its stages have found. For a
/// translation request (ATS) also the fields of the completion (IOMMU §2.6). Combinational.
module iommu_answer
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase
) (
    /// The request.
    input ctx_t ctx_i,
    /// Access.
    input acc_t acc_i,
    /// Fault, or CauseNone.
    input cause_t cause_i,
    /// The context of the device is known and applies.
    input logic dc_usable_i,
    /// Nothing was translated.
    input logic direct_i,
    /// There is no first stage.
    input logic s1_bare_i,
    /// Leaf of the first stage.
    input leaf_t s1_leaf_i,
    /// Page after the first stage.
    input logic [51:0] page_i,
    /// Leaf of the second stage.
    input leaf_t s2_leaf_i,
    /// iommu_qosid.RCID.
    input logic [11:0] rcid_i,
    /// iommu_qosid.MCID.
    input logic [11:0] mcid_i,
    /// Answer.
    output tr_rsp_t rsp_o
);
  // What both stages have in common. Without a stage, its leaf permits everything.
  localparam page_size_e FlatSize = page_of_log2(Cfg.bare_size_log2);
  page_size_e size;
  logic msi, ats, r, w, x, granted, s2_bare;
  logic [1:0] pbmt;
  page_size_e sizes;
  assign ats = ctx_i.req.ttyp == TtAtsReq;
  assign msi = ctx_i.msi_valid;
  assign s2_bare = ctx_i.dc.s2_mode == PtBare;

  always_comb begin
    sizes = s2_leaf_i.size;
    if (!s1_bare_i && s1_leaf_i.size < sizes) sizes = s1_leaf_i.size;
    if (s1_bare_i && s2_bare) sizes = FlatSize;
    if (direct_i) sizes = FlatSize;
    if (msi) sizes = Pg4K;
  end

  // A translation must not cover the page of an interrupt file beside its own.
  function automatic logic covers_msi(page_size_e s);
    return ctx_i.dc.msi_en && !direct_i &&
           ((page_i ^ ctx_i.dc.msi_pattern) & ~ctx_i.dc.msi_mask & ~page_mask(s)) == '0;
  endfunction
  always_comb begin
    size = Pg4K;
    for (int unsigned i = 1; i <= 32'(Pg256T); i++) begin
      if (3'(i) <= sizes && !covers_msi(page_size_e'(3'(i)))) size = page_size_e'(3'(i));
    end
  end

  always_comb begin
    pbmt = s1_bare_i ? 2'd0 : s1_leaf_i.pbmt;
    // An MSI PTE has no memory type; that of the first stage overrides it like any other.
    if (pbmt == 2'd0 && !msi) pbmt = s2_leaf_i.pbmt;
    if (direct_i || (msi && ctx_i.msi.mrif)) pbmt = 2'd0;
  end

  // Permissions of a completion. A translation into a memory-resident file is for untranslated
  // requests only, which are checked on their own.
  always_comb begin
    r = msi || s2_leaf_i.r;
    w = msi || s2_leaf_i.w;
    x = !msi && s2_leaf_i.x;
    if (!s1_bare_i && !(msi && ctx_i.msi.mrif)) begin
      r = r && s1_leaf_i.r;
      w = w && s1_leaf_i.w;
      x = x && exec_permits(s1_leaf_i, acc_i);
    end
    x = x && r && acc_i.exec;
  end
  assign granted = cause_i == CauseNone;

  always_comb begin
    rsp_o = '0;
    rsp_o.tag = ctx_i.req.tag;
    rsp_o.status = granted ? TrOk : ats ? ats_status(Cfg, cause_i) : fault_status(Cfg, cause_i);
    rsp_o.cause = rsp_o.status == TrOk ? CauseNone : cause_i;
    rsp_o.rcid = dc_usable_i ? ctx_i.dc.rcid : rcid_i;
    rsp_o.mcid = dc_usable_i ? ctx_i.dc.mcid : mcid_i;
    if (granted) begin
      rsp_o.size_log2 = page_log2(size);
      rsp_o.pbmt = pbmt;
      rsp_o.is_msi = msi;
      rsp_o.is_mrif = msi && ctx_i.msi.mrif;
      rsp_o.dtf = ctx_i.dc.dtf && rsp_o.is_mrif;
      rsp_o.mrif_addr = rsp_o.is_mrif ? ctx_i.msi.mrif_addr : '0;
      rsp_o.notice_ppn = rsp_o.is_mrif ? ctx_i.msi.notice_ppn : '0;
      rsp_o.notice_id = rsp_o.is_mrif ? ctx_i.msi.notice_id : '0;
      rsp_o.spa = {msi ? ctx_i.msi.ppn : direct_i ? page_i[43:0] : leaf_ppn(s2_leaf_i, page_i),
                   ctx_i.req.iova[11:0]};
      if (rsp_o.is_mrif) rsp_o.spa = '0;
      if (Cfg.t2gpa && ats && ctx_i.dc.t2gpa) begin
        rsp_o.is_gpa = 1'b1;
        rsp_o.spa = {page_i[43:0], ctx_i.req.iova[11:0]};
        rsp_o.addr_hi = page_i[51:44];
      end
      if (!Cfg.wide_pass_through_faults && !msi && (direct_i || (s1_bare_i && s2_bare))) begin
        rsp_o.addr_hi = page_i[51:44];
      end
    end
    if (Cfg.ats && ats && rsp_o.status == TrOk) begin
      rsp_o.ats.priv = ctx_i.req.pid_valid && ctx_i.req.priv;
      if (granted) begin
        rsp_o.ats.r = r;
        rsp_o.ats.w = w;
        rsp_o.ats.x = x;
        rsp_o.ats.u = rsp_o.is_mrif;
        rsp_o.ats.global_map = !msi && !s1_bare_i && s1_leaf_i.global_map && ctx_i.req.pid_valid;
        rsp_o.ats.cxl_io = msi || ctx_i.dc.t2gpa || pbmt != 2'd0 || Cfg.cxl_io_for_pma;
      end
    end
  end

  logic unused;
  assign unused = ^{ctx_i, acc_i, s1_leaf_i, s2_leaf_i, rcid_i, mcid_i, r, w, x};
endmodule
