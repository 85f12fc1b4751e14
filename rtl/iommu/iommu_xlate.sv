// SPDX-License-Identifier: MIT OR Apache-2.0

/// The translation side of the IOMMU: the front, its caches and its walkers. The control side
/// (registers, queues, interrupts) stands beside it in `iommu`.
module iommu_xlate
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase,
    /// First-stage translations held.
    parameter int unsigned IotlbEntries = 64,
    /// Second-stage translations held.
    parameter int unsigned S2tlbEntries = 32,
    /// Non-leaf entries held of each stage, 0 for none.
    parameter int unsigned WalkEntries = 0,
    /// Device contexts held.
    parameter int unsigned DdtcEntries = 16,
    /// Process contexts held.
    parameter int unsigned PdtcEntries = 16
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Translation request; ready/valid, stable until taken.
    input logic tr_req_valid_i,
    /// Request taken.
    output logic tr_req_ready_o,
    /// Request.
    input tr_req_t tr_req_i,
    /// Answer; valid only, in the order of the requests.
    output logic tr_rsp_valid_o,
    /// Answer.
    output tr_rsp_t tr_rsp_o,

    /// Request of the debug interface, of an untranslated type; ready/valid.
    input logic dbg_req_valid_i,
    /// Request taken.
    output logic dbg_req_ready_o,
    /// Request; the tag is not used.
    input tr_req_t dbg_req_i,
    /// Answer; valid only.
    output logic dbg_rsp_valid_o,
    /// Answer.
    output tr_rsp_t dbg_rsp_o,

    /// A message asks for its device context; ready/valid.
    input logic dir_req_valid_i,
    /// Request taken.
    output logic dir_req_ready_o,
    /// Request.
    input dir_req_t dir_req_i,
    /// Answer; valid only.
    output logic dir_rsp_valid_o,
    /// Answer.
    output dir_rsp_t dir_rsp_o,

    /// Write into a memory-resident interrupt file; ready/valid.
    input logic mrif_req_valid_i,
    /// Write taken.
    output logic mrif_req_ready_o,
    /// Write.
    input mrif_req_t mrif_req_i,
    /// The write and its notice are globally visible, or have failed; one cycle.
    output logic mrif_done_o,

    /// ddtp.iommu_mode.
    input ddt_mode_e mode_i,
    /// ddtp.PPN.
    input logic [43:0] root_ppn_i,
    /// fctl.BE.
    input logic be_i,
    /// fctl.GXL.
    input logic gxl_i,
    /// iommu_qosid.RCID, for requests that no context applies to and for the device directory.
    input logic [11:0] rcid_i,
    /// iommu_qosid.MCID.
    input logic [11:0] mcid_i,

    /// Invalidate translations, one cycle.
    input logic iotlb_inval_valid_i,
    /// Which.
    input iotlb_inval_t iotlb_inval_i,
    /// Invalidate directory entries, one cycle.
    input logic dir_inval_valid_i,
    /// Which.
    input dir_inval_t dir_inval_i,
    /// Mark the requests that are under way, one cycle.
    input logic mark_i,
    /// A marked request has not been answered yet.
    output logic marked_busy_o,

    /// Fault to report; ready/valid.
    output logic fault_valid_o,
    /// Fault taken.
    input logic fault_ready_i,
    /// Fault.
    output fault_t fault_o,
    /// What the performance monitor counts.
    output hpm_event_t event_o,

    /// Memory requests of the clients, stable until taken.
    output logic [NumXlateClients-1:0] mem_valid_o,
    /// Memory request taken.
    input logic [NumXlateClients-1:0] mem_ready_i,
    /// Memory requests.
    output mem_req_t [NumXlateClients-1:0] mem_req_o,
    /// Response beat for a client.
    input logic [NumXlateClients-1:0] mem_rsp_valid_i,
    /// Response beat.
    input iommu_mem_rsp_t mem_rsp_i
);
  // Contexts and translations held.
  logic [23:0] lookup_device_id;
  logic [19:0] lookup_process_id;
  logic lookup_used, ddtc_hit, pdtc_hit, iotlb_used, iotlb_hit, iotlb_fill;
  dc_t ddtc_dc;
  pc_t pdtc_pc;
  leaf_t iotlb_leaf;

  // The request that is worked on; walks are for it.
  ctx_t ctx;
  space_t space;
  acc_t acc, s2_acc, front_s2_acc;
  logic [51:0] page, s2_page;
  logic may_fill;

  logic ddtw_start, ddtw_done, pdtw_start, pdtw_done, s1w_start, s1w_done, msiw_start, msiw_done;
  cause_t ddtw_cause, pdtw_cause, msiw_cause;
  walk_e s1w_result;
  dc_t ddtw_dc;
  pc_t pdtw_pc;
  leaf_t s1w_leaf;
  msi_t msiw_msi;
  logic [43:0] pdtw_page, pdtw_s2_page, s1w_s2_page;
  logic [11:3] pdtw_offset;
  logic [3:0] load;
  logic [55:2] s1w_gpa;
  logic s1w_gpa_write;

  logic front_s2_valid, pdtw_s2_valid, s1w_s2_valid, s1w_s2_write, s2_valid, s2_done, s2_walk;
  s2_rsp_t s2_rsp;
  logic front_fault_valid, front_fault_ready, mrif_fault_valid, mrif_fault_ready;
  fault_t front_fault, mrif_fault;
  mem_req_t [NumXlateClients-1:0] mem_req;

  iommu_front #(
      .Cfg(Cfg)
  ) u_front (
      .clk_i,
      .rst_ni,
      .tr_req_valid_i,
      .tr_req_ready_o,
      .tr_req_i,
      .tr_rsp_valid_o,
      .tr_rsp_o,
      .dbg_req_valid_i,
      .dbg_req_ready_o,
      .dbg_req_i,
      .dbg_rsp_valid_o,
      .dir_req_valid_i,
      .dir_req_ready_o,
      .dir_req_i,
      .dir_rsp_valid_o,
      .dir_rsp_o,
      .mode_i,
      .root_ppn_i,
      .rcid_i,
      .mcid_i,
      .inval_i            (iotlb_inval_valid_i || dir_inval_valid_i),
      .mark_i,
      .marked_busy_o,
      .lookup_device_id_o (lookup_device_id),
      .lookup_process_id_o(lookup_process_id),
      .lookup_used_o      (lookup_used),
      .ddtc_hit_i         (ddtc_hit),
      .ddtc_dc_i          (ddtc_dc),
      .pdtc_hit_i         (pdtc_hit),
      .pdtc_pc_i          (pdtc_pc),
      .ctx_o              (ctx),
      .space_o            (space),
      .acc_o              (acc),
      .page_o             (page),
      .may_fill_o         (may_fill),
      .iotlb_used_o       (iotlb_used),
      .iotlb_hit_i        (iotlb_hit),
      .iotlb_leaf_i       (iotlb_leaf),
      .ddtw_start_o       (ddtw_start),
      .ddtw_done_i        (ddtw_done),
      .ddtw_cause_i       (ddtw_cause),
      .ddtw_dc_i          (ddtw_dc),
      .pdtw_start_o       (pdtw_start),
      .pdtw_done_i        (pdtw_done),
      .pdtw_cause_i       (pdtw_cause),
      .pdtw_page_i        (pdtw_page),
      .pdtw_offset_i      (pdtw_offset),
      .pdtw_pc_i          (pdtw_pc),
      .s1w_start_o        (s1w_start),
      .s1w_done_i         (s1w_done),
      .s1w_result_i       (s1w_result),
      .s1w_leaf_i         (s1w_leaf),
      .s1w_gpa_i          (s1w_gpa),
      .s1w_gpa_write_i    (s1w_gpa_write),
      .msiw_start_o       (msiw_start),
      .msiw_done_i        (msiw_done),
      .msiw_cause_i       (msiw_cause),
      .msiw_msi_i         (msiw_msi),
      .s2_valid_o         (front_s2_valid),
      .s2_acc_o           (front_s2_acc),
      .s2_done_i          (s2_done),
      .s2_rsp_i           (s2_rsp),
      .s2_walk_i          (s2_walk),
      .load_i             (load),
      .fault_valid_o      (front_fault_valid),
      .fault_ready_i      (front_fault_ready),
      .fault_o            (front_fault),
      .event_o
  );
  assign dbg_rsp_o = tr_rsp_o;
  // Clients 0 to 3 are the walkers in the order of their events.
  for (genvar i = 0; i < 4; i++) begin : gen_load
    assign load[i] = mem_valid_o[i] && mem_ready_i[i] && mem_req[i].op == MemRead;
  end

  iommu_directory #(
      .Cfg        (Cfg),
      .DdtcEntries(DdtcEntries),
      .PdtcEntries(PdtcEntries)
  ) u_directory (
      .clk_i,
      .rst_ni,
      .be_i,
      .gxl_i,
      .lookup_device_id_i (lookup_device_id),
      .lookup_process_id_i(lookup_process_id),
      .lookup_used_i      (lookup_used),
      .ddtc_hit_o         (ddtc_hit),
      .ddtc_dc_o          (ddtc_dc),
      .pdtc_hit_o         (pdtc_hit),
      .pdtc_pc_o          (pdtc_pc),
      .ctx_i              (ctx),
      .may_fill_i         (may_fill),
      .ddtw_start_i       (ddtw_start),
      .ddtw_done_o        (ddtw_done),
      .ddtw_cause_o       (ddtw_cause),
      .ddtw_dc_o          (ddtw_dc),
      .pdtw_start_i       (pdtw_start),
      .pdtw_done_o        (pdtw_done),
      .pdtw_cause_o       (pdtw_cause),
      .pdtw_page_o        (pdtw_page),
      .pdtw_offset_o      (pdtw_offset),
      .pdtw_pc_o          (pdtw_pc),
      .s2_valid_o         (pdtw_s2_valid),
      .s2_page_o          (pdtw_s2_page),
      .s2_done_i          (s2_done && pdtw_s2_valid),
      .s2_rsp_i           (s2_rsp),
      .inval_valid_i      (dir_inval_valid_i),
      .inval_i            (dir_inval_i),
      .mem_valid_o        (mem_valid_o[MemPdtw:MemDdtw]),
      .mem_ready_i        (mem_ready_i[MemPdtw:MemDdtw]),
      .mem_req_o          (mem_req[MemPdtw:MemDdtw]),
      .mem_rsp_valid_i    (mem_rsp_valid_i[MemPdtw:MemDdtw]),
      .mem_rsp_i
  );

  assign iotlb_fill = s1w_done && s1w_result == WkOk && may_fill;
  iommu_iotlb #(
      .Entries(IotlbEntries),
      .Guests (Cfg.sv32x4 || Cfg.sv39x4 || Cfg.sv48x4 || Cfg.sv57x4)
  ) u_iotlb (
      .clk_i,
      .rst_ni,
      .guest_i      (ctx.dc.s2_mode != PtBare),
      .gscid_i      (ctx.dc.gscid),
      .pscid_i      (space.pscid),
      .page_i       (ctx.req.iova[56:12]),
      .used_i       (iotlb_used),
      .hit_o        (iotlb_hit),
      .leaf_o       (iotlb_leaf),
      .fill_valid_i (iotlb_fill),
      .fill_leaf_i  (s1w_leaf),
      .inval_valid_i(iotlb_inval_valid_i),
      .inval_i      (iotlb_inval_i)
  );

  iommu_pt_walker #(
      .Cfg        (Cfg),
      .WalkEntries(WalkEntries)
  ) u_s1_walker (
      .clk_i,
      .rst_ni,
      .start_valid_i   (s1w_start),
      .mode_i          (space.mode),
      .root_ppn_i      (space.ppn),
      .page_i          (ctx.req.iova[58:12]),
      .acc_i           (acc),
      .ade_i           (ctx.dc.sade),
      .be_i            (ctx.dc.sbe),
      .guest_i         (ctx.dc.s2_mode != PtBare),
      .gscid_i         (ctx.dc.gscid),
      .pscid_i         (space.pscid),
      .may_fill_i      (may_fill),
      .inval_valid_i   (iotlb_inval_valid_i),
      .inval_i         (iotlb_inval_i),
      .s2_valid_o      (s1w_s2_valid),
      .s2_page_o       (s1w_s2_page),
      .s2_write_o      (s1w_s2_write),
      .s2_done_i       (s2_done && s1w_s2_valid),
      .s2_rsp_i        (s2_rsp),
      .done_valid_o    (s1w_done),
      .done_result_o   (s1w_result),
      .done_leaf_o     (s1w_leaf),
      .done_gpa_o      (s1w_gpa),
      .done_gpa_write_o(s1w_gpa_write),
      .mem_valid_o     (mem_valid_o[MemS1w]),
      .mem_ready_i     (mem_ready_i[MemS1w]),
      .mem_req_o       (mem_req[MemS1w]),
      .mem_rsp_valid_i (mem_rsp_valid_i[MemS1w]),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_pte_i   (mem_rsp_i.rdata[63:0])
  );

  // The second stage serves whoever asks: the walkers while the front waits for them, else the front.
  always_comb begin
    s2_valid = front_s2_valid || s1w_s2_valid || pdtw_s2_valid;
    s2_page = page;
    s2_acc = front_s2_acc;
    if (s1w_s2_valid || pdtw_s2_valid) begin
      s2_page = {8'd0, s1w_s2_valid ? s1w_s2_page : pdtw_s2_page};
      s2_acc = '0;
      s2_acc.write = s1w_s2_valid && s1w_s2_write;
    end
  end
  iommu_s2 #(
      .Cfg        (Cfg),
      .Entries    (S2tlbEntries),
      .WalkEntries(WalkEntries)
  ) u_s2 (
      .clk_i,
      .rst_ni,
      .dc_i            (ctx.dc),
      .be_i,
      .valid_i         (s2_valid),
      .page_i          (s2_page),
      .acc_i           (s2_acc),
      .done_o          (s2_done),
      .rsp_o           (s2_rsp),
      .may_fill_i      (may_fill),
      .walk_o          (s2_walk),
      .inval_valid_i   (iotlb_inval_valid_i),
      .inval_i         (iotlb_inval_i),
      .mem_valid_o     (mem_valid_o[MemS2w]),
      .mem_ready_i     (mem_ready_i[MemS2w]),
      .mem_req_o       (mem_req[MemS2w]),
      .mem_rsp_valid_i (mem_rsp_valid_i[MemS2w]),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_pte_i   (mem_rsp_i.rdata[63:0])
  );

  // Never started without MSI_FLAT, which leaves nothing of it after synthesis.
  iommu_msi_walker #(
      .Cfg(Cfg)
  ) u_msi_walker (
      .clk_i,
      .rst_ni,
      .start_valid_i   (msiw_start),
      .root_ppn_i      (ctx.dc.msi_ppn),
      .mask_i          (ctx.dc.msi_mask),
      .page_i          (page),
      .req_i           (ctx.req),
      .be_i,
      .done_valid_o    (msiw_done),
      .done_cause_o    (msiw_cause),
      .done_msi_o      (msiw_msi),
      .mem_valid_o     (mem_valid_o[MemMsiw]),
      .mem_ready_i     (mem_ready_i[MemMsiw]),
      .mem_req_o       (mem_req[MemMsiw]),
      .mem_rsp_valid_i (mem_rsp_valid_i[MemMsiw]),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_pte_i   (mem_rsp_i.rdata[127:0])
  );

  if (Cfg.msi_mrif) begin : gen_mrif
    iommu_mrif #(
        .Cfg(Cfg)
    ) u_mrif (
        .clk_i,
        .rst_ni,
        .rcid_i,
        .mcid_i,
        .req_valid_i     (mrif_req_valid_i),
        .req_ready_o     (mrif_req_ready_o),
        .req_i           (mrif_req_i),
        .done_o          (mrif_done_o),
        .fault_valid_o   (mrif_fault_valid),
        .fault_ready_i   (mrif_fault_ready),
        .fault_o         (mrif_fault),
        .mem_valid_o     (mem_valid_o[MemMrif]),
        .mem_ready_i     (mem_ready_i[MemMrif]),
        .mem_req_o       (mem_req[MemMrif]),
        .mem_rsp_valid_i (mem_rsp_valid_i[MemMrif]),
        .mem_rsp_error_i (mem_rsp_i.error),
        .mem_rsp_poison_i(mem_rsp_i.poison)
    );
  end else begin : gen_no_mrif
    assign mrif_req_ready_o = 1'b0;
    assign mrif_done_o = 1'b0;
    assign mrif_fault_valid = 1'b0;
    assign mrif_fault = '0;
    assign mem_valid_o[MemMrif] = 1'b0;
    assign mem_req[MemMrif] = '0;
    logic unused_mrif;
    assign unused_mrif = ^{mrif_req_valid_i, mrif_req_i, mrif_fault_ready, mem_ready_i[MemMrif],
                           mem_rsp_valid_i[MemMrif]};
  end

  // Faults of interrupt files first: they hold nobody up for long.
  assign fault_valid_o = front_fault_valid || mrif_fault_valid;
  assign fault_o = mrif_fault_valid ? mrif_fault : front_fault;
  assign mrif_fault_ready = fault_ready_i;
  assign front_fault_ready = fault_ready_i && !mrif_fault_valid;

  // The device directory is accessed with the IDs of iommu_qosid, tables with those of the device
  // context (IOMMU §2.1.3, §5.27); u_mrif says which its own are.
  always_comb begin
    mem_req_o = mem_req;
    for (int unsigned i = 0; i < NumXlateClients; i++) begin
      if (i != MemMrif) begin
        mem_req_o[i].rcid = i == MemDdtw ? rcid_i : ctx.dc.rcid;
        mem_req_o[i].mcid = i == MemDdtw ? mcid_i : ctx.dc.mcid;
      end
    end
  end

  logic unused;
  assign unused = ^{mem_rsp_i.tag, ctx};
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      $onehot0({front_s2_valid, s1w_s2_valid, pdtw_s2_valid}));
endmodule
