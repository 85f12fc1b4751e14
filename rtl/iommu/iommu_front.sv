// SPDX-License-Identifier: MIT OR Apache-2.0

/// Takes requests through the process of IOMMU §2.3. Three stages: accept, directory lookup, resolve
/// (checks, lookup in both stages, answer). A request that misses stays in the resolve stage until
/// its walks have ended; those behind it wait, so that answers come in order.
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
    /// Answer, also to the debug interface.
    output tr_rsp_t tr_rsp_o,
    /// Request of the debug interface; ready/valid.
    input logic dbg_req_valid_i,
    /// Request taken.
    output logic dbg_req_ready_o,
    /// Request.
    input tr_req_t dbg_req_i,
    /// `tr_rsp_o` is the answer to it, valid only.
    output logic dbg_rsp_valid_o,
    /// A message asks for its device context; ready/valid.
    input logic dir_req_valid_i,
    /// Request taken.
    output logic dir_req_ready_o,
    /// Request.
    input dir_req_t dir_req_i,
    /// Answer, valid only.
    output logic dir_rsp_valid_o,
    /// Answer.
    output dir_rsp_t dir_rsp_o,

    /// ddtp.iommu_mode.
    input ddt_mode_e mode_i,
    /// ddtp.PPN.
    input logic [43:0] root_ppn_i,
    /// iommu_qosid.RCID.
    input logic [11:0] rcid_i,
    /// iommu_qosid.MCID.
    input logic [11:0] mcid_i,

    /// An invalidation takes effect in this cycle.
    input logic inval_i,
    /// Mark the requests that are under way, one cycle.
    input logic mark_i,
    /// A marked request has not been answered yet.
    output logic marked_busy_o,

    /// Device and process looked up.
    output logic [23:0] lookup_device_id_o,
    /// 0 for a request without.
    output logic [19:0] lookup_process_id_o,
    /// The results are used.
    output logic lookup_used_o,
    /// Device context held.
    input logic ddtc_hit_i,
    /// Device context.
    input dc_t ddtc_dc_i,
    /// Process context held.
    input logic pdtc_hit_i,
    /// Process context.
    input pc_t pdtc_pc_i,

    /// The request in the resolve stage, for the walkers and caches.
    output ctx_t ctx_o,
    /// Its first stage.
    output space_t space_o,
    /// Its access.
    output acc_t acc_o,
    /// Its page after the first stage, address bits 63:12.
    output logic [51:0] page_o,
    /// What is found may be held.
    output logic may_fill_o,

    /// The result of the first stage's lookup is used.
    output logic iotlb_used_o,
    /// Translation held.
    input logic iotlb_hit_i,
    /// Translation.
    input leaf_t iotlb_leaf_i,

    /// Locate the device context.
    output logic ddtw_start_o,
    /// Ended.
    input logic ddtw_done_i,
    /// Fault or CauseNone.
    input cause_t ddtw_cause_i,
    /// Context.
    input dc_t ddtw_dc_i,
    /// Locate the process context.
    output logic pdtw_start_o,
    /// Ended.
    input logic pdtw_done_i,
    /// Fault or CauseNone.
    input cause_t pdtw_cause_i,
    /// Guest page of a guest page fault.
    input logic [43:0] pdtw_page_i,
    /// Offset of the entry in it.
    input logic [11:3] pdtw_offset_i,
    /// Context.
    input pc_t pdtw_pc_i,
    /// Walk the first stage.
    output logic s1w_start_o,
    /// Ended.
    input logic s1w_done_i,
    /// How.
    input walk_e s1w_result_i,
    /// Leaf.
    input leaf_t s1w_leaf_i,
    /// Entry that the second stage refused.
    input logic [55:2] s1w_gpa_i,
    /// It was to be written.
    input logic s1w_gpa_write_i,
    /// Begin a walk of the MSI page table.
    output logic msiw_start_o,
    /// Ended.
    input logic msiw_done_i,
    /// Fault or CauseNone.
    input cause_t msiw_cause_i,
    /// Where it leads.
    input msi_t msiw_msi_i,
    /// Translate `page_o` with the second stage; held until done.
    output logic s2_valid_o,
    /// Access there.
    output acc_t s2_acc_o,
    /// Done.
    input logic s2_done_i,
    /// Result.
    input s2_rsp_t s2_rsp_i,
    /// The second stage begins a walk, for whomever.
    input logic s2_walk_i,
    /// The walkers of device directory, process directory, first and second stage load an entry.
    input logic [3:0] load_i,

    /// Fault to report; ready/valid.
    output logic fault_valid_o,
    /// Fault taken.
    input logic fault_ready_i,
    /// Fault.
    output fault_t fault_o,
    /// What the performance monitor counts.
    output hpm_event_t event_o
);
  /// What the resolve stage waits for.
  typedef enum logic [2:0] { StRun, StDdt, StPdt, StS1, StMsi } state_e;

  // Accept stage.
  logic a_valid, a_marked, a_advance;
  kind_e a_kind;
  tr_req_t a_req;
  // Resolve stage.
  logic r_valid_q, r_valid_d, r_done;
  state_e state_q, state_d;
  ctx_t r_q, r_d;

  assign a_advance = a_valid && (!r_valid_q || r_done);
  iommu_accept u_accept (
      .clk_i,
      .rst_ni,
      .tr_req_valid_i,
      .tr_req_ready_o,
      .tr_req_i,
      .dbg_req_valid_i,
      .dbg_req_ready_o,
      .dbg_req_i,
      .dir_req_valid_i,
      .dir_req_ready_o,
      .dir_req_i,
      .mark_i,
      .valid_o  (a_valid),
      .advance_i(a_advance),
      .kind_o   (a_kind),
      .req_o    (a_req),
      .marked_o (a_marked)
  );

  assign lookup_device_id_o = a_req.device_id;
  assign lookup_process_id_o = a_req.pid_valid ? a_req.process_id : '0;
  assign lookup_used_o = a_advance;

  // Contexts and what they do not permit.
  logic in_ddt, dc_usable, need_ddt, need_pdt, direct;
  cause_t cause;
  ttyp_e ttyp, access;
  logic [63:2] iova;
  assign ttyp = r_q.req.ttyp;
  assign access = access_type(Cfg, r_q.req);
  assign iova = r_q.req.iova[63:2];
  iommu_checks #(
      .Cfg(Cfg)
  ) u_checks (
      .ctx_i      (r_q),
      .in_ddt_o   (in_ddt),
      .dc_usable_o(dc_usable),
      .cause_o    (cause),
      .need_ddt_o (need_ddt),
      .need_pdt_o (need_pdt),
      .direct_o   (direct),
      .space_o,
      .acc_o
  );

  // First stage: its result, or the address itself.
  logic s1_bare, use_tlb, leaf_hit, msi_match;
  leaf_t leaf;
  assign s1_bare = space_o.mode == PtBare;
  // A hit that does not permit the access is walked again: faults are only ever found in memory,
  // and a PTE that software has made more permissive needs no invalidation.
  assign use_tlb = !s1_bare && !r_q.leaf_valid && iotlb_hit_i && leaf_permits(Cfg, iotlb_leaf_i, acc_o);
  assign leaf_hit = r_q.leaf_valid || use_tlb;
  assign leaf = r_q.leaf_valid ? r_q.leaf : iotlb_leaf_i;
  assign page_o = s1_bare ? iova[63:12] : {8'd0, leaf_ppn(leaf, iova[63:12])};
  assign msi_match = Cfg.msi_flat && in_ddt && r_q.dc.msi_en &&
                     ((page_o ^ r_q.dc.msi_pattern) & ~r_q.dc.msi_mask) == '0;
  // A translation request does not set D where the first stage does not let it write; but what is
  // clean may be refused all the same.
  always_comb begin
    s2_acc_o = acc_o;
    if (acc_o.probe && !s1_bare) begin
      s2_acc_o.write = acc_o.write &&
                       (leaf.w || (Cfg.ats_clean_page == CleanNoAccess && !r_q.dc.gade));
      s2_acc_o.exec = acc_o.exec && exec_permits(leaf, acc_o);
    end
  end

  // Beyond capabilities.PAS there is no physical address: the PMA check fails.
  logic answer, s2_bare, s2_ok, s2_fault, wide;
  assign s2_bare = r_q.dc.s2_mode == PtBare;
  assign wide = (Cfg.wide_pass_through_faults || !s1_bare || !s2_bare) &&
                beyond_pas(Cfg, s2_bare ? page_o : {8'd0, leaf_ppn(s2_rsp_i.leaf, page_o)});
  assign s2_ok = s2_rsp_i.result == WkOk && !wide;
  assign s2_fault = s2_valid_o && s2_done_i && !s2_ok;
  always_comb begin
    state_d = state_q;
    answer = 1'b0;
    ddtw_start_o = 1'b0;
    pdtw_start_o = 1'b0;
    s1w_start_o = 1'b0;
    msiw_start_o = 1'b0;
    s2_valid_o = 1'b0;
    unique case (state_q)
      StRun: begin
        if (r_valid_q) begin
          if (cause != CauseNone || direct) begin
            answer = 1'b1;
          end else if (need_ddt) begin
            ddtw_start_o = 1'b1;
            state_d = StDdt;
          end else if (need_pdt) begin
            pdtw_start_o = 1'b1;
            state_d = StPdt;
          end else if (!s1_bare && !leaf_hit) begin
            s1w_start_o = 1'b1;
            state_d = StS1;
          end else if (msi_match) begin
            answer = r_q.msi_valid;
            msiw_start_o = !r_q.msi_valid;
            if (!r_q.msi_valid) state_d = StMsi;
          end else begin
            s2_valid_o = 1'b1;
            answer = s2_done_i && s2_ok;
          end
        end
      end
      StDdt:   if (ddtw_done_i) state_d = StRun;
      StPdt:   if (pdtw_done_i) state_d = StRun;
      StS1:    if (s1w_done_i) state_d = StRun;
      default: if (msiw_done_i) state_d = StRun;
    endcase
  end

  // A fault is reported unless DTF of a located context suppresses it (IOMMU §3.2). Where the
  // process of §2.3 ends before step 6 none is, even if the DDTC holds one of another ddtp mode.
  tr_rsp_t rsp;
  logic report;
  assign report = cause != CauseNone && r_q.kind != KindDir && rsp.status != TrOk &&
                  (!(dc_usable && r_q.dc.dtf) || cause_ignores_dtf(cause));
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
      iotval: iotval(Cfg, r_q.req),
      iotval2: r_q.iotval2
  };

  iommu_answer #(
      .Cfg(Cfg)
  ) u_answer (
      .ctx_i      (r_q),
      .acc_i      (acc_o),
      .cause_i    (cause),
      .dc_usable_i(dc_usable),
      .direct_i   (direct),
      .s1_bare_i  (s1_bare),
      .s1_leaf_i  (leaf),
      .page_i     (page_o),
      .s2_leaf_i  (s2_rsp_i.leaf),
      .rcid_i,
      .mcid_i,
      .rsp_o      (rsp)
  );

  assign may_fill_o = !r_q.stale && !inval_i;

  // Guest address of a fault. Bit 0: an implicit access, bit 1: to write it (IOMMU §3.2).
  function automatic logic [63:0] iotval2(logic [63:2] gpa, logic [1:0] implicit);
    return {gpa[63:12], Cfg.iotval2_page_offset ? gpa[11:2] : 10'd0, implicit};
  endfunction

  always_comb begin
    r_valid_d = r_valid_q;
    r_d = r_q;
    r_d.stale = r_q.stale || inval_i;
    r_d.marked = r_q.marked || mark_i;
    r_d.missed = r_q.missed || s1w_start_o || (s2_valid_o && s2_walk_i);
    // What is held may go while the request waits for the rest.
    if (iotlb_used_o) begin
      r_d.leaf_valid = 1'b1;
      r_d.leaf = iotlb_leaf_i;
    end
    if (s2_fault) begin
      r_d.cause = walk_cause(s2_rsp_i.result == WkOk ? WkAccess : s2_rsp_i.result, access, 1'b1);
      if (s2_rsp_i.result == WkPage) r_d.iotval2 = iotval2({page_o, iova[11:2]}, 2'b00);
    end
    if (state_q == StDdt && ddtw_done_i) begin
      r_d.cause = ddtw_cause_i;
      r_d.dc_valid = ddtw_cause_i == CauseNone;
      r_d.dc = ddtw_dc_i;
    end
    if (state_q == StPdt && pdtw_done_i) begin
      r_d.cause = pdtw_cause_i;
      r_d.pc_valid = pdtw_cause_i == CauseNone;
      r_d.pc = pdtw_pc_i;
      if (pdtw_cause_i == guest_page_fault(access)) begin
        r_d.iotval2 = iotval2(
            {8'd0, pdtw_page_i, Cfg.pdt_offset_in_iotval2 ? {pdtw_offset_i, 1'b0} : 10'd0}, 2'b01);
      end
    end
    if (state_q == StS1 && s1w_done_i) begin
      r_d.cause = walk_cause(s1w_result_i, access, 1'b0);
      r_d.leaf_valid = s1w_result_i == WkOk;
      r_d.leaf = s1w_leaf_i;
      if (s1w_result_i == WkGuest) r_d.iotval2 = iotval2({8'd0, s1w_gpa_i}, {s1w_gpa_write_i, 1'b1});
    end
    if (state_q == StMsi && msiw_done_i) begin
      r_d.cause = msiw_cause_i;
      r_d.msi_valid = msiw_cause_i == CauseNone;
      r_d.msi = msiw_msi_i;
      if (msiw_cause_i == CauseNone && msiw_msi_i.mrif && r_q.kind == KindDbg) begin
        r_d.cause = CauseTypeDisallowed;  // IOMMU §4
      end
    end
    if (r_done) r_valid_d = 1'b0;
    if (a_advance) begin
      r_valid_d = 1'b1;
      r_d = '0;
      r_d.kind = a_kind;
      r_d.marked = a_marked || mark_i;
      r_d.stale = inval_i;
      r_d.req = a_req;
      r_d.mode = mode_i;
      r_d.root_ppn = root_ppn_i;
      r_d.dc_valid = ddtc_hit_i;
      r_d.dc = ddtc_dc_i;
      r_d.pc_valid = pdtc_hit_i;
      r_d.pc = pdtc_pc_i;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      r_valid_q <= 1'b0;
      state_q <= StRun;
      tr_rsp_valid_o <= 1'b0;
      dbg_rsp_valid_o <= 1'b0;
      dir_rsp_valid_o <= 1'b0;
    end else begin
      r_valid_q <= r_valid_d;
      state_q <= state_d;
      tr_rsp_valid_o <= r_done && r_q.kind == KindTr;
      dbg_rsp_valid_o <= r_done && r_q.kind == KindDbg;
      dir_rsp_valid_o <= r_done && r_q.kind == KindDir;
    end
  end
  always_ff @(posedge clk_i) begin
    r_q <= r_d;
    tr_rsp_o <= rsp;
    dir_rsp_o <= '{cause: cause, dc: r_q.dc};
  end

  assign ctx_o = r_q;
  assign marked_busy_o = (a_valid && a_marked) || (r_valid_q && r_q.marked);

  always_comb begin
    event_o = '{
        pulse: '0,
        device_id: r_q.req.device_id,
        pid_valid: r_q.req.pid_valid,
        process_id: r_q.req.process_id,
        gscid_valid: dc_usable && r_q.dc.s2_mode != PtBare,
        gscid: r_q.dc.gscid,
        pscid_valid: dc_usable && !need_pdt && !s1_bare,
        pscid: space_o.pscid
    };
    if (r_q.kind != KindDir) begin
      event_o.pulse[EvUntranslated] = r_done && is_untranslated(ttyp);
      event_o.pulse[EvTranslated] = r_done && is_translated(ttyp);
      event_o.pulse[EvAtsRequest] = r_done && ttyp == TtAtsReq;
    end
    event_o.pulse[EvTlbMiss] = !r_q.missed && r_d.missed && !a_advance;
    if (Cfg.walk_events == WalkEventsPerWalk) begin
      event_o.pulse[EvDdtWalk] = ddtw_start_o;
      event_o.pulse[EvPdtWalk] = pdtw_start_o;
      event_o.pulse[EvS1Walk] = s1w_start_o;
      event_o.pulse[EvS2Walk] = s2_walk_i;
    end else begin
      event_o.pulse[EvS2Walk:EvDdtWalk] = load_i;
    end
  end

  // A walk ends only for the stage that waits for it.
  assert property (@(posedge clk_i) disable iff (!rst_ni) !ddtw_done_i || state_q == StDdt);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !pdtw_done_i || state_q == StPdt);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !s1w_done_i || state_q == StS1);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !msiw_done_i || state_q == StMsi);
  assert property (@(posedge clk_i) disable iff (!rst_ni) state_q == StRun || r_valid_q);
  // A page request reads the directory and nothing else.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      r_q.kind != KindDir || !r_valid_q ||
      !(pdtw_start_o || s1w_start_o || msiw_start_o || s2_valid_o));
endmodule
