// SPDX-License-Identifier: MIT OR Apache-2.0

/// The translation side of the IOMMU: the front, its caches and its walkers. The control side
/// (registers, queues, interrupts) stands beside it in `iommu`.
module iommu_xlate
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase,
    /// Translations held in the IOTLB.
    parameter int unsigned IotlbEntries = 64,
    /// Device contexts held in the DDTC.
    parameter int unsigned DdtcEntries = 16
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

    /// A page request asks for its device context; ready/valid.
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
  pt_mode_e walk_s1_mode;
  logic [43:0] walk_root_ppn, walk_s1_ppn, walk_msi_ppn;
  logic [51:0] walk_msi_mask, walk_page;
  logic ddtw_start, ddtw_done, ptw_start, ptw_done, msiw_start, msiw_done;
  cause_t ddtw_cause, ptw_cause, msiw_cause;
  dc_t ddtw_dc;
  leaf_t ptw_leaf;
  logic [43:0] msiw_ppn;


  // GV = 1 names a guest's address spaces; with no second stage there is none. Nothing a GVMA covers
  // is cached: MSI PTEs are read for each request.
  logic host_vma;
  assign host_vma = iotlb_inval_valid_i && !iotlb_inval_i.gvma && !iotlb_inval_i.gv;

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
      .mode_i          (mode_i),
      .root_ppn_i      (root_ppn_i),
      .inval_i         (iotlb_inval_valid_i || dir_inval_valid_i),
      .mark_i          (mark_i),
      .marked_busy_o   (marked_busy_o),
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
      .fault_valid_o   (fault_valid_o),
      .fault_ready_i   (fault_ready_i),
      .fault_o         (fault_o)
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
      .inval_valid_i     (dir_inval_valid_i),
      .inval_i           (dir_inval_i)
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
      .inval_valid_i (host_vma),
      .inval_i       (iotlb_inval_i)
  );

  iommu_ddt_walker #(
      .Cfg(Cfg)
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
      .mem_valid_o    (mem_valid_o[MemDdtw]),
      .mem_ready_i    (mem_ready_i[MemDdtw]),
      .mem_req_o      (mem_req_o[MemDdtw]),
      .mem_rsp_valid_i (mem_rsp_valid_i[MemDdtw]),
      .mem_rsp_last_i  (mem_rsp_i.last),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_data_i  (mem_rsp_i.rdata)
  );

  iommu_pt_walker #(
      .Cfg(Cfg)
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
      .mem_valid_o     (mem_valid_o[MemS1w]),
      .mem_ready_i     (mem_ready_i[MemS1w]),
      .mem_req_o       (mem_req_o[MemS1w]),
      .mem_rsp_valid_i (mem_rsp_valid_i[MemS1w]),
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
      .mem_valid_o     (mem_valid_o[MemMsiw]),
      .mem_ready_i     (mem_ready_i[MemMsiw]),
      .mem_req_o       (mem_req_o[MemMsiw]),
      .mem_rsp_valid_i (mem_rsp_valid_i[MemMsiw]),
      .mem_rsp_error_i (mem_rsp_i.error),
      .mem_rsp_poison_i(mem_rsp_i.poison),
      .mem_rsp_pte_i   (mem_rsp_i.rdata[63:0])
  );

  // Not implemented yet: never ready, never an answer.
  assign dbg_req_ready_o = 1'b0;
  assign dbg_rsp_valid_o = 1'b0;
  assign dbg_rsp_o = '0;
  assign dir_req_ready_o = 1'b0;
  assign dir_rsp_valid_o = 1'b0;
  assign dir_rsp_o = '0;
  assign mrif_req_ready_o = 1'b0;
  assign mrif_done_o = 1'b0;
  assign event_o = '0;
  for (genvar i = 0; i < NumXlateClients; i++) begin : gen_unused_client
    if (i == MemPdtw || i == MemS2w || i == MemMrif) begin : gen_unused
      assign mem_valid_o[i] = 1'b0;
      assign mem_req_o[i] = '0;
    end
  end
  logic unused;
  assign unused = ^{dbg_req_valid_i, dbg_req_i, dir_req_valid_i, dir_req_i, mrif_req_valid_i,
                    mrif_req_i, be_i, gxl_i, rcid_i, mcid_i, mem_rsp_i.tag, mem_ready_i[MemPdtw], mem_ready_i[MemS2w],
                    mem_ready_i[MemMrif], mem_rsp_valid_i[MemPdtw], mem_rsp_valid_i[MemS2w],
                    mem_rsp_valid_i[MemMrif]};
endmodule
