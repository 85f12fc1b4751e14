// SPDX-License-Identifier: MIT OR Apache-2.0

/// RISC-V IOMMU v1.0: device directory, first-stage translation, command and fault queues,
/// interrupts by MSI. README.md in this folder has the block diagram and the choices made where
/// the specification is open.
module iommu
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
    parameter int unsigned PdtcEntries = 16,
    /// Cycles until an Invalidate Request times out: a minute, at 250 MHz.
    parameter longint unsigned AtsTimeoutCycles = 64'd15_000_000_000
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

    /// Write into a memory-resident interrupt file; ready/valid, stable until taken.
    input logic mrif_req_valid_i,
    /// Write taken.
    output logic mrif_req_ready_o,
    /// Write.
    input mrif_req_t mrif_req_i,
    /// The write and its notice are globally visible, or have failed; one cycle, in order.
    output logic mrif_done_o,

    /// Message of a device; ready/valid, stable until taken.
    input logic msg_in_valid_i,
    /// Message taken.
    output logic msg_in_ready_o,
    /// Message.
    input msg_in_t msg_in_i,
    /// Message for a device; ready/valid, stable until taken.
    output logic msg_out_valid_o,
    /// Message taken.
    input logic msg_out_ready_i,
    /// Message.
    output msg_out_t msg_out_o,
    /// Wired interrupts, level.
    output logic [15:0] wsi_o,

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
  iommu_mem_rsp_t client_rsp;
  mem_req_t [NumMemClients-1:0] mem_req, own_mem_req;

  ddt_mode_e mode;
  logic [43:0] ddtp_ppn;
  logic ddtp_busy, ddtp_done, fence_valid, fence_global, fence_done, mark, marked_busy;

  queue_cfg_t cq_cfg, fq_cfg;
  logic cie, cq_clear_cqmf, cq_clear_cmd_ill, cq_on, cqmf, cmd_ill;
  logic fie, fq_clear_fqmf, fq_clear_fqof, fq_on, fqmf, fqof, new_record;
  logic [31:0] cq_head, fq_tail;
  logic [3:0] ipsr, ipsr_clear;
  logic [3:0][3:0] vector;
  logic fctl_wsi, hpm_overflow, fence_w_ip, cq_clear_fence_w_ip;
  msi_cfg_t [15:0] msi_cfg;

  logic iotlb_inval_valid, dir_inval_valid;
  iotlb_inval_t iotlb_inval;
  dir_inval_t dir_inval;

  logic fctl_be, fctl_gxl;
  logic [11:0] qos_rcid, qos_mcid;
  logic dbg_req_valid, dbg_req_ready, dbg_rsp_valid;
  tr_req_t dbg_req;
  tr_rsp_t dbg_rsp;
  logic dir_req_valid, dir_req_ready, dir_rsp_valid;
  dir_req_t dir_req;
  dir_rsp_t dir_rsp;
  hpm_event_t hpm_event;
  logic [8:0] ext_reg_no;
  logic ext_wr_lo, ext_wr_hi;
  logic [63:0] ext_wdata, ext_rdata, dbg_rdata, hpm_rdata, pq_rdata;
  logic pq_level, pq_event, pq_fault_valid, cmd_to, cq_clear_cmd_to;
  logic ats_valid, ats_ready, ats_prgr, ats_busy, ats_timeout, ats_timeout_ack;
  logic [127:0] ats_cmd;
  fault_t pq_fault, fq_fault;
  logic fq_fault_valid, fq_fault_ready;

  logic tr_fault_valid, tr_fault_ready, msi_fault_valid, msi_fault_ready;
  fault_t tr_fault;
  logic [55:0] msi_fault_addr;

  iommu_xlate #(
      .Cfg         (Cfg),
      .IotlbEntries(IotlbEntries),
      .S2tlbEntries(S2tlbEntries),
      .WalkEntries (WalkEntries),
      .DdtcEntries (DdtcEntries),
      .PdtcEntries (PdtcEntries)
  ) u_xlate (
      .clk_i,
      .rst_ni,
      .tr_req_valid_i,
      .tr_req_ready_o,
      .tr_req_i,
      .tr_rsp_valid_o,
      .tr_rsp_o,
      .dbg_req_valid_i    (dbg_req_valid),
      .dbg_req_ready_o    (dbg_req_ready),
      .dbg_req_i          (dbg_req),
      .dbg_rsp_valid_o    (dbg_rsp_valid),
      .dbg_rsp_o          (dbg_rsp),
      .dir_req_valid_i    (dir_req_valid),
      .dir_req_ready_o    (dir_req_ready),
      .dir_req_i          (dir_req),
      .dir_rsp_valid_o    (dir_rsp_valid),
      .dir_rsp_o          (dir_rsp),
      .mrif_req_valid_i,
      .mrif_req_ready_o,
      .mrif_req_i,
      .mrif_done_o,
      .mode_i             (mode),
      .root_ppn_i         (ddtp_ppn),
      .be_i               (fctl_be),
      .gxl_i              (fctl_gxl),
      .rcid_i             (qos_rcid),
      .mcid_i             (qos_mcid),
      .iotlb_inval_valid_i(iotlb_inval_valid),
      .iotlb_inval_i      (iotlb_inval),
      .dir_inval_valid_i  (dir_inval_valid),
      .dir_inval_i        (dir_inval),
      .mark_i             (mark),
      .marked_busy_o      (marked_busy),
      .fault_valid_o      (tr_fault_valid),
      .fault_ready_i      (tr_fault_ready),
      .fault_o            (tr_fault),
      .event_o            (hpm_event),
      .mem_valid_o        (mem_valid[NumXlateClients-1:0]),
      .mem_ready_i        (mem_ready[NumXlateClients-1:0]),
      .mem_req_o          (mem_req[NumXlateClients-1:0]),
      .mem_rsp_valid_i    (mem_rsp_valid[NumXlateClients-1:0]),
      .mem_rsp_i          (client_rsp)
  );

  iommu_cq #(
      .Cfg(Cfg)
  ) u_cq (
      .clk_i,
      .rst_ni,
      .cfg_i              (cq_cfg),
      .mode_i             (mode),
      .be_i               (fctl_be),
      .clear_cqmf_i       (cq_clear_cqmf),
      .clear_cmd_ill_i    (cq_clear_cmd_ill),
      .wsi_i              (fctl_wsi),
      .clear_cmd_to_i     (cq_clear_cmd_to),
      .cmd_to_o           (cmd_to),
      .ats_valid_o        (ats_valid),
      .ats_ready_i        (ats_ready),
      .ats_prgr_o         (ats_prgr),
      .ats_cmd_o          (ats_cmd),
      .ats_busy_i         (ats_busy),
      .ats_timeout_i      (ats_timeout),
      .ats_timeout_ack_o  (ats_timeout_ack),
      .clear_fence_w_ip_i (cq_clear_fence_w_ip),
      .fence_w_ip_o       (fence_w_ip),
      .head_o             (cq_head),
      .on_o               (cq_on),
      .cqmf_o             (cqmf),
      .cmd_ill_o          (cmd_ill),
      .iotlb_inval_valid_o(iotlb_inval_valid),
      .iotlb_inval_o      (iotlb_inval),
      .dir_inval_valid_o  (dir_inval_valid),
      .dir_inval_o        (dir_inval),
      .fence_valid_o      (fence_valid),
      .fence_global_o     (fence_global),
      .fence_done_i       (fence_done),
      .mem_valid_o        (mem_valid[MemCq]),
      .mem_ready_i        (mem_ready[MemCq]),
      .mem_req_o          (mem_req[MemCq]),
      .mem_rsp_valid_i    (mem_rsp_valid[MemCq]),
      .mem_rsp_error_i    (client_rsp.error || client_rsp.poison),
      .mem_rsp_cmd_i      (client_rsp.rdata[127:0])
  );

  iommu_fq u_fq (
      .clk_i,
      .rst_ni,
      .be_i             (fctl_be),
      .cfg_i            (fq_cfg),
      .clear_fqmf_i     (fq_clear_fqmf),
      .clear_fqof_i     (fq_clear_fqof),
      .tail_o           (fq_tail),
      .on_o             (fq_on),
      .fqmf_o           (fqmf),
      .fqof_o           (fqof),
      .new_record_o     (new_record),
      .tr_fault_valid_i (fq_fault_valid),
      .tr_fault_ready_o (fq_fault_ready),
      .tr_fault_i       (fq_fault),
      .msi_fault_valid_i(msi_fault_valid),
      .msi_fault_ready_o(msi_fault_ready),
      .msi_fault_addr_i (msi_fault_addr),
      .mem_valid_o      (mem_valid[MemFq]),
      .mem_ready_i      (mem_ready[MemFq]),
      .mem_req_o        (mem_req[MemFq]),
      .mem_rsp_valid_i  (mem_rsp_valid[MemFq]),
      .mem_rsp_error_i  (client_rsp.error)
  );

  iommu_msi u_msi (
      .clk_i,
      .rst_ni,
      .level_i        ({pq_level, 1'b0, fie && (fqmf || fqof),
                         cie && (cqmf || cmd_ill || cmd_to || fence_w_ip)}),
      .event_i        ({pq_event, hpm_overflow, fie && new_record, 1'b0}),
      .clear_i        (ipsr_clear),
      .ipsr_o         (ipsr),
      .vector_i       (vector),
      .wsi_i          (fctl_wsi),
      .wsi_o,
      .cfg_i          (msi_cfg),
      .fault_valid_o  (msi_fault_valid),
      .fault_ready_i  (msi_fault_ready),
      .fault_addr_o   (msi_fault_addr),
      .mem_valid_o    (mem_valid[MemMsi]),
      .mem_ready_i    (mem_ready[MemMsi]),
      .mem_req_o      (mem_req[MemMsi]),
      .mem_rsp_valid_i(mem_rsp_valid[MemMsi]),
      .mem_rsp_error_i(client_rsp.error)
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
      .Cfg(Cfg)
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
      .ext_reg_no_o      (ext_reg_no),
      .ext_wr_lo_o       (ext_wr_lo),
      .ext_wr_hi_o       (ext_wr_hi),
      .ext_wdata_o       (ext_wdata),
      .ext_rdata_i       (ext_rdata),
      .rcid_o            (qos_rcid),
      .mcid_o            (qos_mcid),
      .be_o              (fctl_be),
      .gxl_o             (fctl_gxl),
      .wsi_o             (fctl_wsi),
      .ddtp_mode_o       (mode),
      .ddtp_ppn_o        (ddtp_ppn),
      .ddtp_busy_o       (ddtp_busy),
      .ddtp_done_i       (ddtp_done),
      .cq_cfg_o          (cq_cfg),
      .cie_o             (cie),
      .cq_clear_cqmf_o   (cq_clear_cqmf),
      .cq_clear_cmd_ill_o(cq_clear_cmd_ill),
      .cq_clear_cmd_to_o (cq_clear_cmd_to),
      .cq_cmd_to_i       (cmd_to),
      .cq_clear_fence_w_ip_o(cq_clear_fence_w_ip),
      .cq_head_i         (cq_head),
      .cq_on_i           (cq_on),
      .cq_cqmf_i         (cqmf),
      .cq_cmd_ill_i      (cmd_ill),
      .cq_fence_w_ip_i   (fence_w_ip),
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
      .vector_o          (vector),
      .msi_cfg_o         (msi_cfg)
  );

  iommu_mem_arb #(
      .Cfg(Cfg)
  ) u_mem_arb (
      .clk_i,
      .rst_ni,
      .client_valid_i    (mem_valid),
      .client_ready_o    (mem_ready),
      .client_req_i      (own_mem_req),
      .client_rsp_valid_o(mem_rsp_valid),
      .mem_req_valid_o,
      .mem_req_ready_i,
      .mem_req_o,
      .mem_rsp_valid_i,
      .mem_rsp_i,
      .client_rsp_o      (client_rsp)
  );

  logic [2:0] unused_reg_req_addr;
  assign unused_reg_req_addr = reg_req_addr_i[2:0];  // the byte enables say which half

  if (Cfg.dbg) begin : gen_dbg
    iommu_dbg #(
        .Cfg(Cfg)
    ) u_dbg (
        .clk_i,
        .rst_ni,
        .reg_no_i   (ext_reg_no),
        .wr_lo_i    (ext_wr_lo),
        .wr_hi_i    (ext_wr_hi),
        .wdata_i    (ext_wdata),
        .rdata_o    (dbg_rdata),
        .req_valid_o(dbg_req_valid),
        .req_ready_i(dbg_req_ready),
        .req_o      (dbg_req),
        .rsp_valid_i(dbg_rsp_valid),
        .rsp_i      (dbg_rsp)
    );
  end else begin : gen_no_dbg
    assign dbg_rdata = '0;
    assign dbg_req_valid = 1'b0;
    assign dbg_req = '0;
    logic unused_dbg;
    assign unused_dbg = ^{ext_reg_no, ext_wr_lo, ext_wr_hi, ext_wdata, dbg_req_ready,
                          dbg_rsp_valid, dbg_rsp};
  end

  if (Cfg.hpm) begin : gen_hpm
    iommu_hpm #(
        .Cfg(Cfg)
    ) u_hpm (
        .clk_i,
        .rst_ni,
        .reg_no_i  (ext_reg_no),
        .wr_lo_i   (ext_wr_lo),
        .wr_hi_i   (ext_wr_hi),
        .wdata_i   (ext_wdata),
        .rdata_o   (hpm_rdata),
        .event_i   (hpm_event),
        .overflow_o(hpm_overflow)
    );
  end else begin : gen_no_hpm
    assign hpm_rdata = '0;
    assign hpm_overflow = 1'b0;
    logic unused_hpm;
    assign unused_hpm = ^{hpm_event, ext_reg_no, ext_wr_lo, ext_wr_hi, ext_wdata};
  end
  assign ext_rdata = dbg_rdata | hpm_rdata | pq_rdata;

  // What the control side does is the IOMMU's own (IOMMU §5.27).
  always_comb begin
    own_mem_req = mem_req;
    for (int unsigned i = NumXlateClients; i < NumMemClients; i++) begin
      own_mem_req[i].rcid = qos_rcid;
      own_mem_req[i].mcid = qos_mcid;
    end
  end

  iommu_messages #(
      .Cfg             (Cfg),
      .AtsTimeoutCycles(AtsTimeoutCycles)
  ) u_messages (
      .clk_i,
      .rst_ni,
      .reg_no_i       (ext_reg_no),
      .wr_lo_i        (ext_wr_lo),
      .wr_hi_i        (ext_wr_hi),
      .wdata_i        (ext_wdata),
      .rdata_o        (pq_rdata),
      .be_i           (fctl_be),
      .level_o        (pq_level),
      .event_o        (pq_event),
      .msg_in_valid_i,
      .msg_in_ready_o,
      .msg_in_i,
      .msg_out_valid_o,
      .msg_out_ready_i,
      .msg_out_o,
      .cmd_valid_i    (ats_valid),
      .cmd_ready_o    (ats_ready),
      .cmd_prgr_i     (ats_prgr),
      .cmd_i          (ats_cmd),
      .busy_o         (ats_busy),
      .timeout_o      (ats_timeout),
      .timeout_ack_i  (ats_timeout_ack),
      .dir_req_valid_o(dir_req_valid),
      .dir_req_ready_i(dir_req_ready),
      .dir_req_o      (dir_req),
      .dir_rsp_valid_i(dir_rsp_valid),
      .dir_rsp_i      (dir_rsp),
      .fault_valid_o  (pq_fault_valid),
      .fault_ready_i  (fq_fault_ready),
      .fault_o        (pq_fault),
      .mem_valid_o    (mem_valid[MemPq]),
      .mem_ready_i    (mem_ready[MemPq]),
      .mem_req_o      (mem_req[MemPq]),
      .mem_rsp_valid_i(mem_rsp_valid[MemPq]),
      .mem_rsp_error_i(client_rsp.error)
  );

  // Faults of messages first: they are rare.
  assign fq_fault_valid = pq_fault_valid || tr_fault_valid;
  assign fq_fault = pq_fault_valid ? pq_fault : tr_fault;
  assign tr_fault_ready = fq_fault_ready && !pq_fault_valid;

  if (!Cfg.sv39 || (Cfg.sv57 && !Cfg.sv48) || (Cfg.sv48x4 && !Cfg.sv39x4) ||
      (Cfg.sv57x4 && !Cfg.sv48x4)) begin : gen_schemes
    $error("Sv39 is always there; a scheme needs those with fewer levels (IOMMU §5.3)");
  end
  if ((Cfg.t2gpa && !Cfg.ats) || (Cfg.msi_mrif && !Cfg.msi_flat) || Cfg.pas < 6'd32 || Cfg.pas > 6'd56 ||
      Cfg.igs == 2'd3) begin : gen_combination
    $error("T2GPA needs ATS, MSI_MRIF needs MSI_FLAT, PAS is 32 to 56, and IGS 3 is reserved");
  end

  if (!(Cfg.bare_size_log2 inside {6'd12, 6'd16, 6'd21, 6'd22, 6'd30, 6'd39, 6'd48}) ||
      Cfg.ddt_levels == '0 || Cfg.queue_log2_max == '0 || Cfg.queue_log2_max > 6'd32 ||
      Cfg.interrupt_vectors_log2 > 3'd4) begin : gen_choices
    $error("a choice has a value that there is not: see iommu_cfg_t");
  end

  // The port answers in the request's shape: one beat for up to 32 bytes.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !mem_rsp_valid_i || mem_rsp_i.last || mem_rsp_i.tag == 4'(MemDdtw));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(mem_req_valid_o && !mem_req_ready_i) || (mem_req_valid_o && $stable(mem_req_o)));
endmodule
