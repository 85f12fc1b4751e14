// SPDX-License-Identifier: MIT OR Apache-2.0

/// RISC-V IOMMU v1.0: device directory, first-stage translation, command and fault queues,
/// interrupts by MSI. README.md in this folder has the block diagram and the choices made where
/// the specification is open.
module iommu
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Translations held in the IOTLB.
    parameter int unsigned IotlbEntries = 64,
    /// Device contexts held in the DDTC.
    parameter int unsigned DdtcEntries = 16,
    /// capabilities.MSI_FLAT: extended-format device contexts and flat MSI page tables.
    parameter bit MsiFlat = 1'b0,
    /// capabilities.Sv48.
    parameter bit Sv48 = 1'b1,
    /// capabilities.Sv57; needs Sv48.
    parameter bit Sv57 = 1'b1,
    /// capabilities.Svpbmt.
    parameter bit Svpbmt = 1'b1
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

    /// Memory request; ready/valid, stable until taken.
    output logic mem_req_valid_o,
    /// Memory request taken.
    input logic mem_req_ready_i,
    /// Memory request.
    output iommu_mem_req_t mem_req_o,
    /// Response beat; valid only.
    input logic mem_rsp_valid_i,
    /// Response beat.
    input iommu_mem_rsp_t mem_rsp_i,

    /// Register access, one cycle.
    input logic reg_req_valid_i,
    /// 1 write.
    input logic reg_req_write_i,
    /// Byte offset; the access lies within the 8 aligned bytes.
    input logic [11:0] reg_req_addr_i,
    /// Byte enables within them.
    input logic [7:0] reg_req_be_i,
    /// Write data.
    input logic [63:0] reg_req_wdata_i,
    /// Response, one cycle.
    output logic reg_rsp_valid_o,
    /// Read data.
    output logic [63:0] reg_rsp_rdata_o,

    /// To the bridge: make visible what has been translated; held until acknowledged.
    output logic drain_req_o,
    /// Acknowledge, one cycle.
    input logic drain_ack_i
);
  logic [NumMemClients-1:0] mem_valid, mem_ready, mem_rsp_valid;
  mem_req_t [NumMemClients-1:0] mem_req;

  ddt_mode_e mode;
  logic [43:0] ddtp_ppn;
  logic ddtp_busy, ddtp_done, fence_valid, fence_global, fence_done, mark, marked_busy;

  queue_cfg_t cq_cfg, fq_cfg;
  logic cie, cq_clear_cqmf, cq_clear_cmd_ill, cq_on, cqmf, cmd_ill;
  logic fie, fq_clear_fqmf, fq_clear_fqof, fq_on, fqmf, fqof, new_record;
  logic [31:0] cq_head, fq_tail;
  logic [1:0] ipsr, ipsr_clear;
  logic [3:0] civ, fiv;
  msi_cfg_t [15:0] msi_cfg;

  logic iotlb_inval_valid, ddtc_inval_valid;
  iotlb_inval_t iotlb_inval;
  ddtc_inval_t ddtc_inval;

  logic [23:0] ddtc_device_id;
  logic ddtc_used, ddtc_hit, ddtc_fill;
  dc_t ddtc_dc;
  logic [19:0] iotlb_pscid;
  logic [44:0] iotlb_vpn;
  logic iotlb_used, iotlb_hit, iotlb_fill;
  leaf_t iotlb_leaf;

  // Walks are for one request at a time; a version with several walkers makes these arrays.
  logic [23:0] walk_device_id;
  ttyp_e walk_ttyp;
  ddt_mode_e walk_mode;
  s1_mode_e walk_s1_mode;
  logic [43:0] walk_root_ppn, walk_s1_ppn, walk_msi_ppn;
  logic [51:0] walk_msi_mask, walk_page;
  logic ddtw_start, ddtw_done, ptw_start, ptw_done, msiw_start, msiw_done;
  cause_t ddtw_cause, ptw_cause, msiw_cause;
  dc_t ddtw_dc;
  leaf_t ptw_leaf;
  logic [43:0] msiw_ppn;

  logic tr_fault_valid, tr_fault_ready, msi_fault_valid, msi_fault_ready;
  fault_t tr_fault;
  logic [55:0] msi_fault_addr;

  iommu_front #(
      .MsiFlat(MsiFlat)
  ) u_front (
      .clk_i,
      .rst_ni,
      .tr_req_valid_i,
      .tr_req_ready_o,
      .tr_req_i,
      .tr_rsp_valid_o,
      .tr_rsp_o,
      .mode_i          (mode),
      .root_ppn_i      (ddtp_ppn),
      .inval_i         (iotlb_inval_valid || ddtc_inval_valid),
      .mark_i          (mark),
      .marked_busy_o   (marked_busy),
      .ddtc_device_id_o(ddtc_device_id),
      .ddtc_used_o     (ddtc_used),
      .ddtc_hit_i      (ddtc_hit),
      .ddtc_dc_i       (ddtc_dc),
      .ddtc_fill_o     (ddtc_fill),
      .iotlb_pscid_o   (iotlb_pscid),
      .iotlb_vpn_o     (iotlb_vpn),
      .iotlb_used_o    (iotlb_used),
      .iotlb_hit_i     (iotlb_hit),
      .iotlb_leaf_i    (iotlb_leaf),
      .iotlb_fill_o    (iotlb_fill),
      .walk_device_id_o(walk_device_id),
      .walk_ttyp_o     (walk_ttyp),
      .walk_mode_o     (walk_mode),
      .walk_root_ppn_o (walk_root_ppn),
      .walk_s1_mode_o  (walk_s1_mode),
      .walk_s1_ppn_o   (walk_s1_ppn),
      .walk_msi_ppn_o  (walk_msi_ppn),
      .walk_msi_mask_o (walk_msi_mask),
      .walk_page_o     (walk_page),
      .ddtw_start_o    (ddtw_start),
      .ddtw_done_i     (ddtw_done),
      .ddtw_cause_i    (ddtw_cause),
      .ddtw_dc_i       (ddtw_dc),
      .ptw_start_o     (ptw_start),
      .ptw_done_i      (ptw_done),
      .ptw_cause_i     (ptw_cause),
      .ptw_leaf_i      (ptw_leaf),
      .msiw_start_o    (msiw_start),
      .msiw_done_i     (msiw_done),
      .msiw_cause_i    (msiw_cause),
      .msiw_ppn_i      (msiw_ppn),
      .fault_valid_o   (tr_fault_valid),
      .fault_ready_i   (tr_fault_ready),
      .fault_o         (tr_fault)
  );

  iommu_ddtc #(
      .Entries(DdtcEntries)
  ) u_ddtc (
      .clk_i,
      .rst_ni,
      .lookup_device_id_i(ddtc_device_id),
      .lookup_used_i     (ddtc_used),
      .hit_o             (ddtc_hit),
      .dc_o              (ddtc_dc),
      .fill_valid_i      (ddtc_fill),
      .fill_device_id_i  (walk_device_id),
      .fill_dc_i         (ddtw_dc),
      .inval_valid_i     (ddtc_inval_valid),
      .inval_i           (ddtc_inval)
  );

  iommu_iotlb #(
      .Entries(IotlbEntries)
  ) u_iotlb (
      .clk_i,
      .rst_ni,
      .lookup_pscid_i(iotlb_pscid),
      .lookup_vpn_i  (iotlb_vpn),
      .lookup_used_i (iotlb_used),
      .hit_o         (iotlb_hit),
      .leaf_o        (iotlb_leaf),
      .fill_valid_i  (iotlb_fill),
      .fill_pscid_i  (iotlb_pscid),
      .fill_vpn_i    (iotlb_vpn),
      .fill_leaf_i   (ptw_leaf),
      .inval_valid_i (iotlb_inval_valid),
      .inval_i       (iotlb_inval)
  );

  iommu_ddt_walker #(
      .MsiFlat(MsiFlat),
      .Sv48   (Sv48),
      .Sv57   (Sv57)
  ) u_ddt_walker (
      .clk_i,
      .rst_ni,
      .start_valid_i  (ddtw_start),
      .mode_i         (walk_mode),
      .root_ppn_i     (walk_root_ppn),
      .device_id_i    (walk_device_id),
      .done_valid_o   (ddtw_done),
      .done_cause_o   (ddtw_cause),
      .done_dc_o      (ddtw_dc),
      .mem_valid_o    (mem_valid[MemDdtw]),
      .mem_ready_i    (mem_ready[MemDdtw]),
      .mem_req_o      (mem_req[MemDdtw]),
      .mem_rsp_valid_i (mem_rsp_valid[MemDdtw]),
      .mem_rsp_last_i  (mem_rsp_i.last),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_data_i  (mem_rsp_i.rdata)
  );

  iommu_pt_walker #(
      .Svpbmt(Svpbmt)
  ) u_pt_walker (
      .clk_i,
      .rst_ni,
      .start_valid_i   (ptw_start),
      .mode_i          (walk_s1_mode),
      .root_ppn_i      (walk_s1_ppn),
      .vpn_i           (iotlb_vpn),
      .ttyp_i          (walk_ttyp),
      .done_valid_o    (ptw_done),
      .done_cause_o    (ptw_cause),
      .done_leaf_o     (ptw_leaf),
      .mem_valid_o     (mem_valid[MemPtw]),
      .mem_ready_i     (mem_ready[MemPtw]),
      .mem_req_o       (mem_req[MemPtw]),
      .mem_rsp_valid_i (mem_rsp_valid[MemPtw]),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_pte_i   (mem_rsp_i.rdata[63:0])
  );

  // Never started without MsiFlat, which leaves nothing of it after synthesis.
  iommu_msi_walker u_msi_walker (
      .clk_i,
      .rst_ni,
      .start_valid_i   (msiw_start),
      .root_ppn_i      (walk_msi_ppn),
      .mask_i          (walk_msi_mask),
      .page_i          (walk_page),
      .ttyp_i          (walk_ttyp),
      .done_valid_o    (msiw_done),
      .done_cause_o    (msiw_cause),
      .done_ppn_o      (msiw_ppn),
      .mem_valid_o     (mem_valid[MemMsiw]),
      .mem_ready_i     (mem_ready[MemMsiw]),
      .mem_req_o       (mem_req[MemMsiw]),
      .mem_rsp_valid_i (mem_rsp_valid[MemMsiw]),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_pte_i   (mem_rsp_i.rdata[63:0])
  );

  iommu_cq #(
      .MsiFlat(MsiFlat)
  ) u_cq (
      .clk_i,
      .rst_ni,
      .cfg_i              (cq_cfg),
      .mode_i             (mode),
      .clear_cqmf_i       (cq_clear_cqmf),
      .clear_cmd_ill_i    (cq_clear_cmd_ill),
      .head_o             (cq_head),
      .on_o               (cq_on),
      .cqmf_o             (cqmf),
      .cmd_ill_o          (cmd_ill),
      .iotlb_inval_valid_o(iotlb_inval_valid),
      .iotlb_inval_o      (iotlb_inval),
      .ddtc_inval_valid_o (ddtc_inval_valid),
      .ddtc_inval_o       (ddtc_inval),
      .fence_valid_o      (fence_valid),
      .fence_global_o     (fence_global),
      .fence_done_i       (fence_done),
      .mem_valid_o        (mem_valid[MemCq]),
      .mem_ready_i        (mem_ready[MemCq]),
      .mem_req_o          (mem_req[MemCq]),
      .mem_rsp_valid_i    (mem_rsp_valid[MemCq]),
      .mem_rsp_error_i    (mem_rsp_i.error || mem_rsp_i.poison),
      .mem_rsp_cmd_i      (mem_rsp_i.rdata[127:0])
  );

  iommu_fq u_fq (
      .clk_i,
      .rst_ni,
      .cfg_i            (fq_cfg),
      .clear_fqmf_i     (fq_clear_fqmf),
      .clear_fqof_i     (fq_clear_fqof),
      .tail_o           (fq_tail),
      .on_o             (fq_on),
      .fqmf_o           (fqmf),
      .fqof_o           (fqof),
      .new_record_o     (new_record),
      .tr_fault_valid_i (tr_fault_valid),
      .tr_fault_ready_o (tr_fault_ready),
      .tr_fault_i       (tr_fault),
      .msi_fault_valid_i(msi_fault_valid),
      .msi_fault_ready_o(msi_fault_ready),
      .msi_fault_addr_i (msi_fault_addr),
      .mem_valid_o      (mem_valid[MemFq]),
      .mem_ready_i      (mem_ready[MemFq]),
      .mem_req_o        (mem_req[MemFq]),
      .mem_rsp_valid_i  (mem_rsp_valid[MemFq]),
      .mem_rsp_error_i  (mem_rsp_i.error)
  );

  iommu_msi u_msi (
      .clk_i,
      .rst_ni,
      .cq_level_i     (cie && (cqmf || cmd_ill)),
      .fq_level_i     (fie && (fqmf || fqof)),
      .fq_event_i     (fie && new_record),
      .clear_i        (ipsr_clear),
      .ipsr_o         (ipsr),
      .civ_i          (civ),
      .fiv_i          (fiv),
      .cfg_i          (msi_cfg),
      .fault_valid_o  (msi_fault_valid),
      .fault_ready_i  (msi_fault_ready),
      .fault_addr_o   (msi_fault_addr),
      .mem_valid_o    (mem_valid[MemMsi]),
      .mem_ready_i    (mem_ready[MemMsi]),
      .mem_req_o      (mem_req[MemMsi]),
      .mem_rsp_valid_i(mem_rsp_valid[MemMsi]),
      .mem_rsp_error_i(mem_rsp_i.error)
  );

  iommu_drain u_drain (
      .clk_i,
      .rst_ni,
      .fence_valid_i (fence_valid),
      .fence_global_i(fence_global),
      .fence_done_o  (fence_done),
      .ddtp_valid_i  (ddtp_busy),
      .ddtp_done_o   (ddtp_done),
      .mark_o        (mark),
      .marked_busy_i (marked_busy),
      .drain_req_o,
      .drain_ack_i
  );

  iommu_regs #(
      .MsiFlat(MsiFlat),
      .Sv48   (Sv48),
      .Sv57   (Sv57),
      .Svpbmt (Svpbmt)
  ) u_regs (
      .clk_i,
      .rst_ni,
      .req_valid_i       (reg_req_valid_i),
      .req_write_i       (reg_req_write_i),
      .req_addr_i        (reg_req_addr_i[11:3]),
      .req_be_i          (reg_req_be_i),
      .req_wdata_i       (reg_req_wdata_i),
      .rsp_valid_o       (reg_rsp_valid_o),
      .rsp_rdata_o       (reg_rsp_rdata_o),
      .ddtp_mode_o       (mode),
      .ddtp_ppn_o        (ddtp_ppn),
      .ddtp_busy_o       (ddtp_busy),
      .ddtp_done_i       (ddtp_done),
      .cq_cfg_o          (cq_cfg),
      .cie_o             (cie),
      .cq_clear_cqmf_o   (cq_clear_cqmf),
      .cq_clear_cmd_ill_o(cq_clear_cmd_ill),
      .cq_head_i         (cq_head),
      .cq_on_i           (cq_on),
      .cq_cqmf_i         (cqmf),
      .cq_cmd_ill_i      (cmd_ill),
      .fq_cfg_o          (fq_cfg),
      .fie_o             (fie),
      .fq_clear_fqmf_o   (fq_clear_fqmf),
      .fq_clear_fqof_o   (fq_clear_fqof),
      .fq_tail_i         (fq_tail),
      .fq_on_i           (fq_on),
      .fq_fqmf_i         (fqmf),
      .fq_fqof_i         (fqof),
      .ipsr_clear_o      (ipsr_clear),
      .ipsr_i            (ipsr),
      .civ_o             (civ),
      .fiv_o             (fiv),
      .msi_cfg_o         (msi_cfg)
  );

  iommu_mem_arb u_mem_arb (
      .clk_i,
      .rst_ni,
      .client_valid_i    (mem_valid),
      .client_ready_o    (mem_ready),
      .client_req_i      (mem_req),
      .client_rsp_valid_o(mem_rsp_valid),
      .mem_req_valid_o,
      .mem_req_ready_i,
      .mem_req_o,
      .mem_rsp_valid_i,
      .mem_rsp_tag_i     (mem_rsp_i.tag)
  );

  logic [2:0] unused_reg_req_addr;
  assign unused_reg_req_addr = reg_req_addr_i[2:0];  // the byte enables say which half

  if (Sv57 && !Sv48) begin : gen_sv57_without_sv48
    $error("capabilities.Sv57 needs capabilities.Sv48 (IOMMU §5.3)");
  end

  // The port answers in the request's shape: one beat for up to 32 bytes.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !mem_rsp_valid_i || mem_rsp_i.last || mem_rsp_i.tag == 4'(MemDdtw));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(mem_req_valid_o && !mem_req_ready_i) || (mem_req_valid_o && $stable(mem_req_o)));
endmodule
