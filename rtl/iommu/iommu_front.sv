// SPDX-License-Identifier: MIT OR Apache-2.0

/// Takes translation requests through the process of IOMMU §2.3. Three stages: accept, DDTC
/// lookup, resolve (checks, IOTLB lookup, answer). A request that misses stays in the resolve
/// stage until its walk has ended; those behind it wait, so that answers come in order.
///
/// In-flight rule: a request that looked into a cache or began a walk before an invalidation is
/// marked stale and its results are used for its own answer only, never filled into a cache. A
/// fence waits for every request accepted before it (`mark_i`, `marked_busy_o`). Together they
/// keep everything that an invalidation covers out of the answers after the fence.
module iommu_front
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

    /// Request offered; ready/valid, stable until taken.
    input logic tr_req_valid_i,
    /// Request taken.
    output logic tr_req_ready_o,
    /// Request.
    input tr_req_t tr_req_i,
    /// Answer, valid only.
    output logic tr_rsp_valid_o,
    /// Answer.
    output tr_rsp_t tr_rsp_o,

    /// ddtp.iommu_mode.
    input ddt_mode_e mode_i,
    /// ddtp.PPN.
    input logic [43:0] root_ppn_i,

    /// An invalidation takes effect in this cycle.
    input logic inval_i,
    /// Mark the requests that are under way, one cycle.
    input logic mark_i,
    /// A marked request has not been answered yet.
    output logic marked_busy_o,

    /// Device looked up.
    output logic [23:0] ddtc_device_id_o,
    /// The result is used.
    output logic ddtc_used_o,
    /// Context held.
    input logic ddtc_hit_i,
    /// Context.
    input dc_t ddtc_dc_i,
    /// Fill the context that the walker delivers.
    output logic ddtc_fill_o,

    /// Address space looked up and filled.
    output logic [19:0] iotlb_pscid_o,
    /// Page looked up and filled.
    output logic [44:0] iotlb_vpn_o,
    /// The result is used.
    output logic iotlb_used_o,
    /// Translation held.
    input logic iotlb_hit_i,
    /// Translation.
    input leaf_t iotlb_leaf_i,
    /// Fill the translation that the walker delivers.
    output logic iotlb_fill_o,

    /// Device of the request that is walked for.
    output logic [23:0] walk_device_id_o,
    /// Its transaction type.
    output ttyp_e walk_ttyp_o,
    /// Mode under which it was looked up in the DDTC.
    output ddt_mode_e walk_mode_o,
    /// The ddtp.PPN that belongs to that mode.
    output logic [43:0] walk_root_ppn_o,
    /// Its first-stage scheme.
    output pt_mode_e walk_s1_mode_o,
    /// Its root page table.
    output logic [43:0] walk_s1_ppn_o,
    /// Its MSI page table.
    output logic [43:0] walk_msi_ppn_o,
    /// Its MSI address mask.
    output logic [51:0] walk_msi_mask_o,
    /// Its address after the first stage, bits 63:12.
    output logic [51:0] walk_page_o,
    /// Begin to locate the device context.
    output logic ddtw_start_o,
    /// Ended.
    input logic ddtw_done_i,
    /// Fault or CauseNone.
    input cause_t ddtw_cause_i,
    /// Context.
    input dc_t ddtw_dc_i,
    /// Begin a first-stage walk.
    output logic ptw_start_o,
    /// Ended.
    input logic ptw_done_i,
    /// Fault or CauseNone.
    input cause_t ptw_cause_i,
    /// Leaf.
    input leaf_t ptw_leaf_i,
    /// Begin a walk of the MSI page table.
    output logic msiw_start_o,
    /// Ended.
    input logic msiw_done_i,
    /// Fault or CauseNone.
    input cause_t msiw_cause_i,
    /// Page of the interrupt file.
    input logic [43:0] msiw_ppn_i,

    /// Fault to report; ready/valid.
    output logic fault_valid_o,
    /// Fault taken.
    input logic fault_ready_i,
    /// Fault.
    output fault_t fault_o
);
  // DDI[1] and DDI[2] start here (IOMMU §2.3, steps 3 and 4).
  localparam int unsigned Ddi1Lsb = Cfg.msi_flat ? 6 : 7;
  localparam int unsigned Ddi2Lsb = Ddi1Lsb + 9;

  /// What the resolve stage waits for.
  typedef enum logic [1:0] { StRun, StDdt, StPt, StMsi } state_e;

  /// A request in the resolve stage and what is known about it.
  typedef struct packed {
    logic        marked;
    logic        stale;
    tr_req_t     req;
    ddt_mode_e   mode;        // mode and PPN of one ddtp write (IOMMU §5.5)
    logic [43:0] root_ppn;
    cause_t      cause;       // fault that a walk found
    logic        dc_valid;
    dc_t         dc;
    logic        leaf_valid;  // from a walk
    leaf_t       leaf;
    logic        msi_valid;   // msi_ppn holds the result
    logic [43:0] msi_ppn;
  } ctx_t;

  // Accept stage.
  logic a_valid_q, a_marked_q, a_advance;
  tr_req_t a_req_q;
  // Resolve stage.
  logic r_valid_q, r_valid_d, r_done;
  state_e state_q, state_d;
  ctx_t r_q, r_d;

  assign a_advance = a_valid_q && (!r_valid_q || r_done);
  assign tr_req_ready_o = !a_valid_q || a_advance;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      a_valid_q <= 1'b0;
      a_marked_q <= 1'b0;
    end else begin
      if (tr_req_ready_o) a_valid_q <= tr_req_valid_i;
      // A request taken in the cycle of the mark counts as accepted before it.
      a_marked_q <= mark_i || (a_marked_q && !tr_req_ready_o);
    end
  end
  always_ff @(posedge clk_i) begin
    if (tr_req_ready_o) a_req_q <= tr_req_i;
  end

  assign ddtc_device_id_o = a_req_q.device_id;
  assign ddtc_used_o = a_advance && ddtc_hit_i;

  // Checks of the request in the resolve stage; the first that applies wins.
  ttyp_e ttyp;
  logic [63:0] iova;
  logic in_ddt, did_too_wide, canonical, s1_bare;
  cause_t check_cause;
  assign ttyp = r_q.req.ttyp;
  assign iova = r_q.req.iova;
  assign in_ddt = r_q.mode inside {Ddt1Lvl, Ddt2Lvl, Ddt3Lvl};
  assign did_too_wide =
      (r_q.mode != Ddt3Lvl && r_q.req.device_id[23:Ddi2Lsb] != '0) ||
      (r_q.mode == Ddt1Lvl && r_q.req.device_id[Ddi2Lsb-1:Ddi1Lsb] != '0);
  always_comb begin
    unique case (r_q.dc.s1_mode)
      PtSv39:  canonical = &iova[63:38] || ~|iova[63:38];
      PtSv48:  canonical = &iova[63:47] || ~|iova[63:47];
      PtSv57:  canonical = &iova[63:56] || ~|iova[63:56];
      default: canonical = 1'b1;
    endcase
  end
  assign s1_bare = !in_ddt || r_q.dc.s1_mode == PtBare;

  // First-stage result, or the address itself.
  logic leaf_hit, use_tlb, msi_match, beyond_pas;
  leaf_t leaf;
  logic [51:0] page;
  assign iotlb_pscid_o = r_q.dc.pscid;
  assign iotlb_vpn_o = iova[56:12];
  // A hit that does not permit the access is walked again: faults are only ever found in memory,
  // and a PTE that software has made more permissive needs no invalidation.
  assign use_tlb = !s1_bare && iotlb_hit_i && leaf_permits(iotlb_leaf_i, ttyp);
  assign leaf_hit = r_q.leaf_valid || use_tlb;
  assign leaf = r_q.leaf_valid ? r_q.leaf : iotlb_leaf_i;
  assign page = s1_bare ? iova[63:12] : {8'd0, leaf_ppn(leaf, iova[56:12])};
  assign msi_match = Cfg.msi_flat && in_ddt && r_q.dc.msi_en &&
                     ((page ^ r_q.dc.msi_pattern) & ~r_q.dc.msi_mask) == '0;
  // Beyond capabilities.PAS there is no physical address: the PMA check fails.
  assign beyond_pas = page[51:44] != '0;

  always_comb begin
    check_cause = CauseNone;
    if (r_q.cause != CauseNone) begin
      check_cause = r_q.cause;
    end else if (r_q.mode == DdtOff) begin
      check_cause = CauseAllDisallowed;
    end else if (!in_ddt) begin
      if (!is_untranslated(ttyp)) check_cause = CauseTypeDisallowed;
      else if (beyond_pas) check_cause = access_fault(ttyp);
    end else if (did_too_wide) begin
      check_cause = CauseTypeDisallowed;
    end else if (r_q.dc_valid) begin
      // EN_ATS is 0 in every valid context: Translated and ATS requests are not allowed.
      if (!is_untranslated(ttyp) || (r_q.req.pid_valid && !r_q.dc.pdtv)) begin
        check_cause = CauseTypeDisallowed;
      end else if (!canonical) begin
        check_cause = page_fault(ttyp);
      end else if (s1_bare && !msi_match && beyond_pas) begin
        check_cause = access_fault(ttyp);
      end
    end
  end

  // A fault is reported unless DTF of a located context suppresses it (IOMMU §3.2). Where the
  // process of §2.3 ends before step 6 none is, even if the DDTC holds one of another ddtp mode.
  logic report, answer, dtf;
  cause_t cause;
  assign cause = check_cause;
  assign dtf = in_ddt && !did_too_wide && r_q.dc_valid && r_q.dc.dtf;
  assign report = cause != CauseNone && (!dtf || cause_ignores_dtf(cause));

  always_comb begin
    state_d = state_q;
    answer = 1'b0;
    ddtw_start_o = 1'b0;
    ptw_start_o = 1'b0;
    msiw_start_o = 1'b0;
    unique case (state_q)
      StRun: begin
        if (r_valid_q) begin
          if (cause != CauseNone) begin
            answer = 1'b1;
          end else if (in_ddt && !r_q.dc_valid) begin
            ddtw_start_o = 1'b1;
            state_d = StDdt;
          end else if (!s1_bare && !leaf_hit) begin
            ptw_start_o = 1'b1;
            state_d = StPt;
          end else if (msi_match && !r_q.msi_valid) begin
            msiw_start_o = 1'b1;
            state_d = StMsi;
          end else begin
            answer = 1'b1;
          end
        end
      end
      StDdt:   if (ddtw_done_i) state_d = StRun;
      StPt:    if (ptw_done_i) state_d = StRun;
      default: if (msiw_done_i) state_d = StRun;
    endcase
  end

  assign fault_valid_o = answer && report;
  assign r_done = answer && (!report || fault_ready_i);
  assign iotlb_used_o = state_q == StRun && r_valid_q && use_tlb;

  assign fault_o = '{
      cause: cause,
      ttyp: ttyp,
      device_id: r_q.req.device_id,
      pid_valid: r_q.req.pid_valid,
      process_id: r_q.req.pid_valid ? r_q.req.process_id : '0,
      priv: r_q.req.pid_valid && r_q.req.priv,
      iotval: iova,
      iotval2: '0
  };

  logic may_fill;
  assign may_fill = !r_q.stale && !inval_i;
  assign ddtc_fill_o = state_q == StDdt && ddtw_done_i && ddtw_cause_i == CauseNone && may_fill;
  assign iotlb_fill_o = state_q == StPt && ptw_done_i && ptw_cause_i == CauseNone && may_fill;

  always_comb begin
    r_valid_d = r_valid_q;
    r_d = r_q;
    r_d.stale = r_q.stale || inval_i;
    r_d.marked = r_q.marked || mark_i;
    if (state_q == StDdt && ddtw_done_i) begin
      r_d.cause = ddtw_cause_i;
      r_d.dc_valid = ddtw_cause_i == CauseNone;
      r_d.dc = ddtw_dc_i;
    end
    if (state_q == StPt && ptw_done_i) begin
      r_d.cause = ptw_cause_i;
      r_d.leaf_valid = ptw_cause_i == CauseNone;
      r_d.leaf = ptw_leaf_i;
    end
    if (state_q == StMsi && msiw_done_i) begin
      r_d.cause = msiw_cause_i;
      r_d.msi_valid = 1'b1;
      r_d.msi_ppn = msiw_ppn_i;
    end
    if (r_done) r_valid_d = 1'b0;
    if (a_advance) begin
      r_valid_d = 1'b1;
      r_d = '0;
      r_d.marked = a_marked_q || mark_i;
      r_d.stale = inval_i;
      r_d.req = a_req_q;
      r_d.mode = mode_i;
      r_d.root_ppn = root_ppn_i;
      r_d.cause = CauseNone;
      r_d.dc_valid = ddtc_hit_i;
      r_d.dc = ddtc_dc_i;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      r_valid_q <= 1'b0;
      state_q <= StRun;
      tr_rsp_valid_o <= 1'b0;
    end else begin
      r_valid_q <= r_valid_d;
      state_q <= state_d;
      tr_rsp_valid_o <= r_done;
    end
  end
  always_ff @(posedge clk_i) begin
    r_q <= r_d;
    tr_rsp_o <= '0;
    tr_rsp_o.tag <= r_q.req.tag;
    tr_rsp_o.status <= cause == CauseNone ? TrOk : fault_status(cause);
    tr_rsp_o.cause <= cause;
    tr_rsp_o.pbmt <= (cause != CauseNone || s1_bare || r_q.msi_valid) ? 2'd0 : leaf.pbmt;
    tr_rsp_o.spa <= cause != CauseNone ? '0
                    : {r_q.msi_valid ? r_q.msi_ppn : page[43:0], iova[11:0]};
  end

  assign walk_device_id_o = r_q.req.device_id;
  assign walk_ttyp_o = ttyp;
  assign walk_mode_o = r_q.mode;
  assign walk_root_ppn_o = r_q.root_ppn;
  assign walk_s1_mode_o = r_q.dc.s1_mode;
  assign walk_s1_ppn_o = r_q.dc.fsc_ppn;
  assign walk_msi_ppn_o = r_q.dc.msi_ppn;
  assign walk_msi_mask_o = r_q.dc.msi_mask;
  assign walk_page_o = page;

  assign marked_busy_o = (a_valid_q && a_marked_q) || (r_valid_q && r_q.marked);

  // Requests are stable while not taken.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(tr_req_valid_i && !tr_req_ready_o) || (tr_req_valid_i && $stable(tr_req_i)));
  // A walk ends only for the stage that waits for it.
  assert property (@(posedge clk_i) disable iff (!rst_ni) !ddtw_done_i || state_q == StDdt);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !ptw_done_i || state_q == StPt);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !msiw_done_i || state_q == StMsi);
  assert property (@(posedge clk_i) disable iff (!rst_ni) state_q == StRun || r_valid_q);
  // Nothing stale is filled.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !r_q.stale || (!ddtc_fill_o && !iotlb_fill_o));
endmodule
