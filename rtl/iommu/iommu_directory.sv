// SPDX-License-Identifier: MIT OR Apache-2.0

/// Device and process contexts: their caches and the walkers that fill them.
module iommu_directory
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase,
    /// Device contexts held.
    parameter int unsigned DdtcEntries = 16,
    /// Process contexts held.
    parameter int unsigned PdtcEntries = 16
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,
    /// fctl.BE.
    input logic be_i,
    /// fctl.GXL.
    input logic gxl_i,

    /// Device looked up; the answers come in the same cycle.
    input logic [23:0] lookup_device_id_i,
    /// Process looked up.
    input logic [19:0] lookup_process_id_i,
    /// The lookup is used: counts for replacement.
    input logic lookup_used_i,
    /// Device context held.
    output logic ddtc_hit_o,
    /// Device context.
    output dc_t ddtc_dc_o,
    /// Process context held.
    output logic pdtc_hit_o,
    /// Process context.
    output pc_t pdtc_pc_o,

    /// The request that is walked for, stable until the end.
    input ctx_t ctx_i,
    /// What is found may be held.
    input logic may_fill_i,
    /// Locate the device context, one cycle.
    input logic ddtw_start_i,
    /// Ended, one cycle.
    output logic ddtw_done_o,
    /// Fault or CauseNone.
    output cause_t ddtw_cause_o,
    /// Device context.
    output dc_t ddtw_dc_o,
    /// Locate the process context, one cycle.
    input logic pdtw_start_i,
    /// Ended, one cycle.
    output logic pdtw_done_o,
    /// Fault or CauseNone.
    output cause_t pdtw_cause_o,
    /// Guest page of a guest page fault.
    output logic [43:0] pdtw_page_o,
    /// Offset of the entry in it.
    output logic [11:3] pdtw_offset_o,
    /// Process context.
    output pc_t pdtw_pc_o,

    /// Ask the second stage for a table; held until done.
    output logic s2_valid_o,
    /// Its guest page.
    output logic [43:0] s2_page_o,
    /// Answered, one cycle.
    input logic s2_done_i,
    /// Answer.
    input s2_rsp_t s2_rsp_i,

    /// Invalidate, one cycle.
    input logic inval_valid_i,
    /// Which.
    input dir_inval_t inval_i,

    /// Memory requests of both walkers, stable until taken.
    output logic [MemPdtw:MemDdtw] mem_valid_o,
    /// Memory request taken.
    input logic [MemPdtw:MemDdtw] mem_ready_i,
    /// Memory requests.
    output mem_req_t [MemPdtw:MemDdtw] mem_req_o,
    /// Response beat for a walker.
    input logic [MemPdtw:MemDdtw] mem_rsp_valid_i,
    /// Response beat.
    input iommu_mem_rsp_t mem_rsp_i
);
  logic ddtc_fill, pdtc_fill;

  assign ddtc_fill = ddtw_done_o && ddtw_cause_o == CauseNone && may_fill_i;
  iommu_ddtc #(
      .Entries(DdtcEntries)
  ) u_ddtc (
      .clk_i,
      .rst_ni,
      .lookup_device_id_i(lookup_device_id_i),
      .lookup_used_i     (lookup_used_i),
      .hit_o             (ddtc_hit_o),
      .dc_o              (ddtc_dc_o),
      .fill_valid_i      (ddtc_fill),
      .fill_device_id_i  (ctx_i.req.device_id),
      .fill_dc_i         (ddtw_dc_o),
      .inval_valid_i     (inval_valid_i),
      .inval_i           (inval_i)
  );

  iommu_ddt_walker #(
      .Cfg(Cfg)
  ) u_ddt_walker (
      .clk_i,
      .rst_ni,
      .start_valid_i   (ddtw_start_i),
      .mode_i          (ctx_i.mode),
      .root_ppn_i      (ctx_i.root_ppn),
      .be_i,
      .gxl_i,
      .device_id_i     (ctx_i.req.device_id),
      .done_valid_o    (ddtw_done_o),
      .done_cause_o    (ddtw_cause_o),
      .done_dc_o       (ddtw_dc_o),
      .mem_valid_o     (mem_valid_o[MemDdtw]),
      .mem_ready_i     (mem_ready_i[MemDdtw]),
      .mem_req_o       (mem_req_o[MemDdtw]),
      .mem_rsp_valid_i (mem_rsp_valid_i[MemDdtw]),
      .mem_rsp_last_i  (mem_rsp_i.last),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_data_i  (mem_rsp_i.rdata)
  );

  if (Cfg.pd8 || Cfg.pd17 || Cfg.pd20) begin : gen_pdt
    logic [19:0] process_id;  // DPE: process 0 for a request without
    assign process_id = ctx_i.req.pid_valid ? ctx_i.req.process_id : '0;
    assign pdtc_fill = pdtw_done_o && pdtw_cause_o == CauseNone && may_fill_i;
    iommu_pdtc #(
        .Entries(PdtcEntries)
    ) u_pdtc (
        .clk_i,
        .rst_ni,
        .lookup_device_id_i (lookup_device_id_i),
        .lookup_process_id_i(lookup_process_id_i),
        .lookup_used_i      (lookup_used_i),
        .hit_o              (pdtc_hit_o),
        .pc_o               (pdtc_pc_o),
        .fill_valid_i       (pdtc_fill),
        .fill_device_id_i   (ctx_i.req.device_id),
        .fill_process_id_i  (process_id),
        .fill_pc_i          (pdtw_pc_o),
        .inval_valid_i      (inval_valid_i),
        .inval_i            (inval_i)
    );
    iommu_pdt_walker #(
        .Cfg(Cfg)
    ) u_pdt_walker (
        .clk_i,
        .rst_ni,
        .start_valid_i   (pdtw_start_i),
        .dc_i            (ctx_i.dc),
        .process_id_i    (process_id),
        .ttyp_i          (access_type(Cfg, ctx_i.req)),
        .done_valid_o    (pdtw_done_o),
        .done_cause_o    (pdtw_cause_o),
        .done_pc_o       (pdtw_pc_o),
        .done_page_o     (pdtw_page_o),
        .done_offset_o   (pdtw_offset_o),
        .s2_valid_o      (s2_valid_o),
        .s2_page_o       (s2_page_o),
        .s2_done_i       (s2_done_i),
        .s2_rsp_i        (s2_rsp_i),
        .mem_valid_o     (mem_valid_o[MemPdtw]),
        .mem_ready_i     (mem_ready_i[MemPdtw]),
        .mem_req_o       (mem_req_o[MemPdtw]),
        .mem_rsp_valid_i (mem_rsp_valid_i[MemPdtw]),
        .mem_rsp_error_i (mem_rsp_i.error),
        .mem_rsp_poison_i(mem_rsp_i.poison),
        .mem_rsp_data_i  (mem_rsp_i.rdata[127:0])
    );
  end else begin : gen_no_pdt
    // pdtp.MODE is Bare in every context: never started.
    assign pdtc_hit_o = 1'b0;
    assign pdtc_pc_o = '0;
    assign pdtc_fill = 1'b0;
    assign pdtw_done_o = 1'b0;
    assign pdtw_cause_o = CauseNone;
    assign pdtw_pc_o = '0;
    assign pdtw_page_o = '0;
    assign pdtw_offset_o = '0;
    assign s2_valid_o = 1'b0;
    assign s2_page_o = '0;
    assign mem_valid_o[MemPdtw] = 1'b0;
    assign mem_req_o[MemPdtw] = '0;
    logic unused_pdt;
    assign unused_pdt = ^{lookup_process_id_i, pdtc_fill, pdtw_start_i, mem_ready_i[MemPdtw],
                          mem_rsp_valid_i[MemPdtw]};
  end

  logic unused;
  assign unused = ^{ctx_i, mem_rsp_i.tag, s2_done_i, s2_rsp_i};
endmodule
