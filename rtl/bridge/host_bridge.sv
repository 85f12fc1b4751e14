// SPDX-License-Identifier: MIT OR Apache-2.0

/// Host bridge: functions on bus 0, CPU port, root ports, IOMMU, attribute resolution, routing to
/// the memory port and between peers. `docs/rtl-ports.md` has the rules.
///
/// Handshake kinds: class-ready for the root ports, ready/valid for the CPU port's requests and the
/// memory port (`mem_pkg`), valid only for the CPU port's responses.
module host_bridge #(
  /// Beat type of the root ports; its data is as wide as the memory port's.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Root ports, 1 or 2.
  parameter int unsigned NumRp = 2,
  /// Maximum payload size in bytes.
  parameter int unsigned MaxPayload = 512,
  /// Vendor ID of the host bridge.
  parameter logic [15:0] HbVendorId = 16'h1ae0,
  /// Cycles until the CPU port gives up a missing completion.
  parameter int unsigned CplTimeout = 2 ** 18,
  localparam int unsigned PortW = (NumRp > 1) ? $clog2(NumRp) : 1
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Strap: PMA table.
  input mem_pkg::pma_region_t [7:0] pma_i,
  /// Strap: bus address = CPU physical address - offset inside `PmaPcie` regions.
  input logic [63:0] bus_offset_i,
  /// Strap: No Snoop is honoured.
  input logic ns_honour_i,
  /// Strap: PMA of `PmaPcie` regions: 0 I/O, 1 main memory, cacheable unless the page says
  /// otherwise.
  input logic aperture_wb_i,
  /// Strap: there is an IOMMU.
  input logic iommu_enable_i,

  /// From below.
  input beat_t [NumRp-1:0] rp_rx_beat_i,
  /// From below.
  input logic [NumRp-1:0] rp_rx_valid_i,
  /// From below.
  output tlp_pkg::tlp_ready_t [NumRp-1:0] rp_rx_ready_o,
  /// Downwards.
  output beat_t [NumRp-1:0] rp_tx_beat_o,
  /// Downwards.
  output logic [NumRp-1:0] rp_tx_valid_o,
  /// Downwards.
  input tlp_pkg::tlp_ready_t [NumRp-1:0] rp_tx_ready_i,

  /// CPU port: a request.
  input logic cpu_req_valid_i,
  /// It is taken.
  output logic cpu_req_ready_o,
  /// 1 write.
  input logic cpu_req_write_i,
  /// Configuration access.
  input logic cpu_req_cfg_i,
  /// Byte address, or ECAM offset.
  input logic [63:0] cpu_req_addr_i,
  /// Byte enables of the 8 bytes around the address.
  input logic [7:0] cpu_req_be_i,
  /// Data of a write.
  input logic [63:0] cpu_req_wdata_i,
  /// CPU port: the response, one cycle.
  output logic cpu_rsp_valid_o,
  /// Data of a read.
  output logic [63:0] cpu_rsp_rdata_o,
  /// 0 done, 1 UR, 2 CA, 3 timeout.
  output logic [1:0] cpu_rsp_status_o,

  /// Memory port: request beat.
  output logic mem_req_valid_o,
  /// It is taken.
  input logic mem_req_ready_i,
  /// The request.
  output mem_pkg::mem_req_t mem_req_o,
  /// First beat.
  output logic mem_req_sop_o,
  /// Last beat.
  output logic mem_req_eop_o,
  /// Data of a write.
  output logic [mem_pkg::MemDataW-1:0] mem_req_wdata_o,
  /// Memory port: response beat.
  input logic mem_rsp_valid_i,
  /// It is taken.
  output logic mem_rsp_ready_o,
  /// The beat.
  input mem_pkg::mem_rsp_t mem_rsp_i,

  /// Tap: a translated request leaves the translation stage.
  output logic tap_valid_o,
  /// Tap: root port it came from.
  output logic [PortW-1:0] tap_port_o,
  /// Tap: its header and prefix as they came.
  output tlp_pkg::tlp_head_t tap_head_o,
  /// Tap: the translation.
  output iommu_pkg::tr_rsp_t tap_rsp_o,
  /// Tap: attributes and destination.
  output bridge_pkg::resolved_t tap_res_o,

  /// Something is under way.
  output logic busy_o
);

  import tlp_pkg::*;
  import bridge_pkg::*;
  import mem_pkg::*;

  localparam int unsigned IdxW = iommu_pkg::TrTagW - PortW - 1;
  localparam int unsigned NumTags = 64;
  localparam int unsigned TagW = $clog2(NumTags);
  localparam int unsigned NumMemIn = 2 * NumRp;  // stream 2 * port + class

  port_pkg::port_cfg_t [NumRp-1:0] rp_cfg;

  // CPU port and bus 0.
  logic [7:0] cfg_devfn;
  logic cfg_present;
  logic cfg_write;
  logic [9:0] cfg_dw;
  logic [3:0] cfg_be;
  logic [31:0] cfg_wdata;
  logic [31:0] cfg_rdata;
  logic iommu_mem_enable;
  logic [63:12] iommu_bar;
  logic reg_req_valid;
  logic reg_req_write;
  logic [11:0] reg_req_addr;
  logic [7:0] reg_req_be;
  logic [63:0] reg_req_wdata;
  logic reg_rsp_valid;
  logic [63:0] reg_rsp_rdata;
  logic cpu_tx_valid;
  logic cpu_tx_take;
  logic cpu_tx_posted;
  logic [PortW-1:0] cpu_tx_port;
  beat_t cpu_tx_beat;
  logic cpu_cpl_valid;
  beat_t cpu_cpl_beat;
  logic cpu_busy;

  hb_cpu #(
    .beat_t(beat_t),
    .NumRp(NumRp),
    .CplTimeout(CplTimeout)
  ) u_cpu (
    .clk_i,
    .rst_ni,
    .pma_i,
    .bus_offset_i,
    .iommu_enable_i,
    .iommu_mem_enable_i(iommu_mem_enable),
    .iommu_bar_i(iommu_bar),
    .rp_cfg_i(rp_cfg),
    .cpu_req_valid_i,
    .cpu_req_ready_o,
    .cpu_req_write_i,
    .cpu_req_cfg_i,
    .cpu_req_addr_i,
    .cpu_req_be_i,
    .cpu_req_wdata_i,
    .cpu_rsp_valid_o,
    .cpu_rsp_rdata_o,
    .cpu_rsp_status_o,
    .cfg_devfn_o(cfg_devfn),
    .cfg_present_i(cfg_present),
    .cfg_write_o(cfg_write),
    .cfg_dw_o(cfg_dw),
    .cfg_be_o(cfg_be),
    .cfg_wdata_o(cfg_wdata),
    .cfg_rdata_i(cfg_rdata),
    .reg_req_valid_o(reg_req_valid),
    .reg_req_write_o(reg_req_write),
    .reg_req_addr_o(reg_req_addr),
    .reg_req_be_o(reg_req_be),
    .reg_req_wdata_o(reg_req_wdata),
    .reg_rsp_valid_i(reg_rsp_valid),
    .reg_rsp_rdata_i(reg_rsp_rdata),
    .tx_valid_o(cpu_tx_valid),
    .tx_take_i(cpu_tx_take),
    .tx_posted_o(cpu_tx_posted),
    .tx_port_o(cpu_tx_port),
    .tx_beat_o(cpu_tx_beat),
    .cpl_valid_i(cpu_cpl_valid),
    .cpl_beat_i(cpu_cpl_beat),
    .busy_o(cpu_busy)
  );

  // Requests that violate ACS of their root port, before and after translation.
  logic [NumRp-1:0] validation_failed;
  logic [NumRp-1:0] blocked;

  hb_config #(
    .NumRp(NumRp),
    .HbVendorId(HbVendorId)
  ) u_config (
    .clk_i,
    .rst_ni,
    .iommu_enable_i,
    .devfn_i(cfg_devfn),
    .present_o(cfg_present),
    .write_i(cfg_write),
    .dw_i(cfg_dw),
    .be_i(cfg_be),
    .wdata_i(cfg_wdata),
    .rdata_o(cfg_rdata),
    .iommu_mem_enable_o(iommu_mem_enable),
    .iommu_bar_o(iommu_bar),
    .acs_violation_i(validation_failed | blocked),
    .rp_cfg_o(rp_cfg)
  );

  // Root ports, upwards.
  logic [NumRp-1:0][1:0] iss_valid;
  logic [NumRp-1:0][1:0] iss_ready;
  logic [NumRp-1:0][1:0][IdxW-1:0] iss_idx;
  tlp_head_t [NumRp-1:0][1:0] iss_head;
  logic [IdxW-1:0] fill_idx;
  tlp_head_t [NumRp-1:0][1:0] fill_head;
  logic [NumRp-1:0][1:0] fill_valid;
  resolved_t fill_res;
  logic [NumRp-1:0] p_valid;
  logic [NumRp-1:0] p_take;
  beat_t [NumRp-1:0] p_beat;
  resolved_t [NumRp-1:0] p_res;
  logic [NumRp-1:0] np_valid;
  logic [NumRp-1:0] np_take;
  logic [NumRp-1:0][IdxW-1:0] np_idx;
  tlp_head_t [NumRp-1:0] np_head;
  resolved_t [NumRp-1:0] np_res;
  logic [NumRp-1:0] cpl_valid;
  logic [NumRp-1:0] cpl_take;
  beat_t [NumRp-1:0] cpl_beat;
  logic [NumRp-1:0][1:0][2**IdxW-1:0] answered;
  logic [NumRp-1:0] ingress_busy;

  for (genvar p = 0; p < NumRp; p++) begin : gen_ingress
    hb_ingress #(
      .beat_t(beat_t),
      .MaxPayload(MaxPayload),
      .IdxW(IdxW)
    ) u_ingress (
      .clk_i,
      .rst_ni,
      .cfg_i(rp_cfg[p]),
      .rx_beat_i(rp_rx_beat_i[p]),
      .rx_valid_i(rp_rx_valid_i[p]),
      .rx_ready_o(rp_rx_ready_o[p]),
      .iss_valid_o(iss_valid[p]),
      .iss_ready_i(iss_ready[p]),
      .iss_idx_o(iss_idx[p]),
      .iss_head_o(iss_head[p]),
      .fill_idx_i(fill_idx),
      .fill_head_o(fill_head[p]),
      .fill_valid_i(fill_valid[p]),
      .fill_res_i(fill_res),
      .p_valid_o(p_valid[p]),
      .p_take_i(p_take[p]),
      .p_beat_o(p_beat[p]),
      .p_res_o(p_res[p]),
      .np_valid_o(np_valid[p]),
      .np_take_i(np_take[p]),
      .np_idx_o(np_idx[p]),
      .np_head_o(np_head[p]),
      .np_res_o(np_res[p]),
      .cpl_valid_o(cpl_valid[p]),
      .cpl_take_i(cpl_take[p]),
      .cpl_beat_o(cpl_beat[p]),
      .answered_o(answered[p]),
      .acs_violation_o(validation_failed[p]),
      .busy_o(ingress_busy[p])
    );
  end

  // Translation.
  logic tr_req_valid;
  logic tr_req_ready;
  iommu_pkg::tr_req_t tr_req;
  logic tr_rsp_valid;
  iommu_pkg::tr_rsp_t tr_rsp;
  logic im_req_valid;
  logic im_req_ready;
  iommu_pkg::iommu_mem_req_t im_req;
  logic im_rsp_valid;
  iommu_pkg::iommu_mem_rsp_t im_rsp;
  logic drain_req;
  logic drain_ack;

  hb_translate #(
    .NumRp(NumRp)
  ) u_translate (
    .clk_i,
    .rst_ni,
    .pma_i,
    .bus_offset_i,
    .ns_honour_i,
    .aperture_wb_i,
    .iommu_enable_i,
    .rp_cfg_i(rp_cfg),
    .iss_valid_i(iss_valid),
    .iss_ready_o(iss_ready),
    .iss_idx_i(iss_idx),
    .iss_head_i(iss_head),
    .tr_req_valid_o(tr_req_valid),
    .tr_req_ready_i(tr_req_ready),
    .tr_req_o(tr_req),
    .tr_rsp_valid_i(tr_rsp_valid),
    .tr_rsp_i(tr_rsp),
    .fill_idx_o(fill_idx),
    .fill_head_i(fill_head),
    .fill_valid_o(fill_valid),
    .fill_res_o(fill_res),
    .acs_violation_o(blocked),
    .tap_valid_o,
    .tap_port_o,
    .tap_head_o,
    .tap_rsp_o
  );

  assign tap_res_o = fill_res;

  logic unused_mrif_ready, unused_mrif_done, unused_msg_in_ready, unused_msg_out_valid;
  iommu_pkg::msg_out_t unused_msg_out;
  logic [15:0] unused_wsi;
  iommu u_iommu (
    .clk_i,
    .rst_ni,
    .tr_req_valid_i(tr_req_valid),
    .tr_req_ready_o(tr_req_ready),
    .tr_req_i(tr_req),
    .tr_rsp_valid_o(tr_rsp_valid),
    .tr_rsp_o(tr_rsp),
    .mem_req_valid_o(im_req_valid),
    .mem_req_ready_i(im_req_ready),
    .mem_req_o(im_req),
    .mem_rsp_valid_i(im_rsp_valid),
    .mem_rsp_i(im_rsp),
    // No ATS, no memory-resident interrupt files, no wires in this configuration.
    .mrif_req_valid_i(1'b0),
    .mrif_req_ready_o(unused_mrif_ready),
    .mrif_req_i('0),
    .mrif_done_o(unused_mrif_done),
    .msg_in_valid_i(1'b0),
    .msg_in_ready_o(unused_msg_in_ready),
    .msg_in_i('0),
    .msg_out_valid_o(unused_msg_out_valid),
    .msg_out_ready_i(1'b1),
    .msg_out_o(unused_msg_out),
    .wsi_o(unused_wsi),
    .reg_req_valid_i(reg_req_valid),
    .reg_req_write_i(reg_req_write),
    .reg_req_addr_i(reg_req_addr),
    .reg_req_be_i(reg_req_be),
    .reg_req_wdata_i(reg_req_wdata),
    .reg_rsp_valid_o(reg_rsp_valid),
    .reg_rsp_rdata_o(reg_rsp_rdata),
    .drain_req_o(drain_req),
    .drain_ack_i(drain_ack)
  );

  // Memory port.
  logic io_valid;
  logic io_ready;
  mem_req_t io_req;
  logic [MemDataW-1:0] io_wdata;
  logic io_busy;
  logic [NumMemIn-1:0] m_valid;
  logic [NumMemIn-1:0] m_take;
  mem_req_t [NumMemIn-1:0] m_req;
  logic [NumMemIn-1:0][MemDataW-1:0] m_wdata;
  logic [NumMemIn-1:0] m_sop;
  logic [NumMemIn-1:0] m_eop;
  logic rd_ready;
  logic [TagW-1:0] rd_tag;
  logic rd_take;
  tlp_hdr_t rd_hdr;
  logic [iommu_pkg::TrTagW-1:0] rd_slot;
  logic [NumTags-1:0] rd_used;
  logic rd_rsp_ready;
  logic mcpl_valid;
  logic mcpl_ready;
  beat_t mcpl_beat;
  logic rsp_is_iommu;
  logic rsp_is_iommu_q;

  function automatic mem_req_t mem_request(tlp_hdr_t h, mem_attr_t attr, logic [55:0] addr,
                                           logic [TagW-1:0] tag);
    return '{
      rsvd: '0,
      src: SrcTlp,
      write: hdr_has_data(h),
      attr: attr,
      req_id: hdr_req_id(h),
      tlp_tag: hdr_tag(h),
      tag: hdr_has_data(h) ? 8'd0 : 8'(tag),
      last_be: hdr_last_be(h),
      first_be: hdr_first_be(h),
      len_dw: hdr_len_dw(h),
      addr: addr,
      rsvd1: '0
    };
  endfunction

  always_comb begin
    rd_take = 1'b0;
    rd_hdr = np_head[0].hdr;
    rd_slot = '0;
    for (int unsigned p = 0; p < NumRp; p++) begin
      m_valid[2*p] = p_valid[p] && p_res[p].dest == DestMem;
      m_req[2*p] = mem_request(p_beat[p].head.hdr, p_res[p].attr, p_res[p].addr[55:0], '0);
      m_wdata[2*p] = p_beat[p].data;
      m_sop[2*p] = p_beat[p].sop;
      m_eop[2*p] = p_beat[p].eop;
      m_valid[2*p+1] = np_valid[p] && np_res[p].dest == DestMem && rd_ready;
      m_req[2*p+1] = mem_request(np_head[p].hdr, np_res[p].attr, np_res[p].addr[55:0], rd_tag);
      m_wdata[2*p+1] = '0;
      m_sop[2*p+1] = 1'b1;
      m_eop[2*p+1] = 1'b1;
      if (m_take[2*p+1]) begin
        rd_take = 1'b1;
        rd_hdr = np_head[p].hdr;
        rd_slot = {PortW'(p), 1'b1, np_idx[p]};
      end
    end
  end

  hb_mem_arb #(
    .NumIn(NumMemIn)
  ) u_mem_arb (
    .clk_i,
    .rst_ni,
    .iommu_valid_i(io_valid),
    .iommu_ready_o(io_ready),
    .iommu_req_i(io_req),
    .iommu_wdata_i(io_wdata),
    .valid_i(m_valid),
    .take_o(m_take),
    .req_i(m_req),
    .wdata_i(m_wdata),
    .sop_i(m_sop),
    .eop_i(m_eop),
    .mem_req_valid_o,
    .mem_req_ready_i,
    .mem_req_o,
    .mem_req_sop_o,
    .mem_req_eop_o,
    .mem_req_wdata_o
  );

  // Responses: bit 7 of the tag says that the IOMMU asked.
  assign rsp_is_iommu = mem_rsp_i.sop ? mem_rsp_i.tag[7] : rsp_is_iommu_q;
  assign mem_rsp_ready_o = rsp_is_iommu || rd_rsp_ready;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) rsp_is_iommu_q <= 1'b0;
    else if (mem_rsp_valid_i && mem_rsp_ready_o) rsp_is_iommu_q <= rsp_is_iommu;
  end

  hb_iommu_port u_iommu_port (
    .clk_i,
    .rst_ni,
    .pma_i,
    .req_valid_i(im_req_valid),
    .req_ready_o(im_req_ready),
    .req_i(im_req),
    .rsp_valid_o(im_rsp_valid),
    .rsp_o(im_rsp),
    .out_valid_o(io_valid),
    .out_ready_i(io_ready),
    .out_req_o(io_req),
    .out_wdata_o(io_wdata),
    .in_valid_i(mem_rsp_valid_i && rsp_is_iommu),
    .in_rsp_i(mem_rsp_i),
    .busy_o(io_busy)
  );

  hb_reads #(
    .beat_t(beat_t),
    .NumTags(NumTags)
  ) u_reads (
    .clk_i,
    .rst_ni,
    .alloc_ready_o(rd_ready),
    .alloc_tag_o(rd_tag),
    .alloc_take_i(rd_take),
    .alloc_hdr_i(rd_hdr),
    .rsp_valid_i(mem_rsp_valid_i && !rsp_is_iommu),
    .rsp_ready_o(rd_rsp_ready),
    .rsp_i(mem_rsp_i),
    .cpl_valid_o(mcpl_valid),
    .cpl_ready_i(mcpl_ready),
    .cpl_beat_o(mcpl_beat),
    .used_o(rd_used)
  );

  hb_drain #(
    .NumSlots(2 ** iommu_pkg::TrTagW),
    .NumTags(NumTags)
  ) u_drain (
    .clk_i,
    .rst_ni,
    .req_i(drain_req),
    .ack_o(drain_ack),
    .answered_i(answered),
    .reading_i(rd_used),
    .move_valid_i(rd_take),
    .move_slot_i(rd_slot),
    .move_tag_i(rd_tag)
  );

  // Root ports, downwards.
  logic [NumRp-1:0] p_mem_take;
  logic [NumRp-1:0] np_mem_take;
  for (genvar p = 0; p < NumRp; p++) begin : gen_mem_take
    assign p_mem_take[p] = m_take[2*p];
    assign np_mem_take[p] = m_take[2*p+1];
  end

  hb_egress #(
    .beat_t(beat_t),
    .NumRp(NumRp)
  ) u_egress (
    .clk_i,
    .rst_ni,
    .rp_cfg_i(rp_cfg),
    .cpu_valid_i(cpu_tx_valid),
    .cpu_take_o(cpu_tx_take),
    .cpu_posted_i(cpu_tx_posted),
    .cpu_port_i(cpu_tx_port),
    .cpu_beat_i(cpu_tx_beat),
    .cpu_cpl_valid_o(cpu_cpl_valid),
    .cpu_cpl_beat_o(cpu_cpl_beat),
    .p_valid_i(p_valid),
    .p_beat_i(p_beat),
    .p_res_i(p_res),
    .p_mem_take_i(p_mem_take),
    .p_take_o(p_take),
    .np_valid_i(np_valid),
    .np_head_i(np_head),
    .np_res_i(np_res),
    .np_mem_take_i(np_mem_take),
    .np_take_o(np_take),
    .cpl_valid_i(cpl_valid),
    .cpl_beat_i(cpl_beat),
    .cpl_take_o(cpl_take),
    .mcpl_valid_i(mcpl_valid),
    .mcpl_beat_i(mcpl_beat),
    .mcpl_ready_o(mcpl_ready),
    .rp_tx_beat_o,
    .rp_tx_valid_o,
    .rp_tx_ready_i
  );

  assign busy_o = cpu_busy || ingress_busy != '0 || io_busy || rd_used != '0 || drain_req
                  || tr_req_valid;

  // The payload of a TLP goes to the memory port as it is.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      $bits(beat_t) == $bits(tlp_head_t) + 2 + MemDataW);

endmodule
