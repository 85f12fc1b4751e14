// SPDX-License-Identifier: MIT OR Apache-2.0

/// The translation stage: takes requests from the slots of all root ports in turn to the IOMMU, and
/// outcomes back to the slots. The tag of a request is its slot: port, class, slot number. Without
/// an IOMMU the system physical address is the address.
///
/// Handshake kinds: ready/valid for `iss` and `tr_req`, valid only for the others.
module hb_translate #(
  /// Root ports, at most 2.
  parameter int unsigned NumRp = 2,
  localparam int unsigned PortW = (NumRp > 1) ? $clog2(NumRp) : 1,
  localparam int unsigned IdxW = iommu_pkg::TrTagW - PortW - 1
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// PMA table.
  input mem_pkg::pma_region_t [7:0] pma_i,
  /// Bus address = CPU physical address - offset inside `PmaPcie` regions.
  input logic [63:0] bus_offset_i,
  /// No Snoop is honoured.
  input logic ns_honour_i,
  /// PMA of `PmaPcie` regions: 0 I/O, 1 main memory, cacheable unless the page says otherwise.
  input logic aperture_wb_i,
  /// There is an IOMMU.
  input logic iommu_enable_i,
  /// Configuration of the root ports.
  input port_pkg::port_cfg_t [NumRp-1:0] rp_cfg_i,

  /// Requests to translate: by port, [0] posted, [1] non-posted.
  input logic [NumRp-1:0][1:0] iss_valid_i,
  /// Taken.
  output logic [NumRp-1:0][1:0] iss_ready_o,
  /// Their slots.
  input logic [NumRp-1:0][1:0][IdxW-1:0] iss_idx_i,
  /// Their headers.
  input tlp_pkg::tlp_head_t [NumRp-1:0][1:0] iss_head_i,

  /// To the IOMMU.
  output logic tr_req_valid_o,
  /// To the IOMMU.
  input logic tr_req_ready_i,
  /// To the IOMMU.
  output iommu_pkg::tr_req_t tr_req_o,
  /// From the IOMMU.
  input logic tr_rsp_valid_i,
  /// From the IOMMU.
  input iommu_pkg::tr_rsp_t tr_rsp_i,

  /// Slot of an outcome.
  output logic [IdxW-1:0] fill_idx_o,
  /// Headers in that slot of all ports and classes.
  input tlp_pkg::tlp_head_t [NumRp-1:0][1:0] fill_head_i,
  /// The outcome is for this port and class.
  output logic [NumRp-1:0][1:0] fill_valid_o,
  /// The outcome.
  output bridge_pkg::resolved_t fill_res_o,

  /// The outcome is that the request violates Access Control Services of its root port.
  output logic [NumRp-1:0] acs_violation_o,

  /// Tap: an outcome.
  output logic tap_valid_o,
  /// Tap: root port of the request.
  output logic [PortW-1:0] tap_port_o,
  /// Tap: its header and prefix.
  output tlp_pkg::tlp_head_t tap_head_o,
  /// Tap: the IOMMU's answer.
  output iommu_pkg::tr_rsp_t tap_rsp_o
);

  import tlp_pkg::*;
  import iommu_pkg::*;

  localparam int unsigned NumIn = 2 * NumRp;
  localparam int unsigned SelW = $clog2(NumIn);

  // Round robin among the streams; the request waits in a register.
  logic [NumIn-1:0] valid;
  logic [NumIn-1:0] ready;
  tlp_head_t [NumIn-1:0] head;
  logic [NumIn-1:0][IdxW-1:0] idx;
  logic [SelW-1:0] last_q;
  logic [SelW-1:0] sel;
  logic free;
  logic req_valid_q;
  tr_req_t req_d;
  tr_req_t req_q;

  assign valid = iss_valid_i;
  assign iss_ready_o = ready;
  assign head = iss_head_i;
  assign idx = iss_idx_i;
  assign free = !req_valid_q || tr_req_ready_i || !iommu_enable_i;

  always_comb begin
    sel = '0;
    for (int unsigned i = NumIn; i > 0; i--) begin
      if (valid[i-1]) sel = SelW'(i - 1);
    end
    for (int unsigned i = NumIn; i > 0; i--) begin
      if (valid[i-1] && (i - 1) > 32'(last_q)) sel = SelW'(i - 1);
    end
    ready = '0;
    ready[sel] = free;
  end

  always_comb begin
    tlp_hdr_t h;
    logic exec;
    h = head[sel].hdr;
    exec = head[sel].pfx_valid && head[sel].pfx[22];
    unique case (hdr_at(h))
      AtTranslationReq: req_d.ttyp = TtAtsReq;
      AtTranslated: req_d.ttyp = hdr_has_data(h) ? TtTransWr : exec ? TtTransRx : TtTransRd;
      default: req_d.ttyp = hdr_has_data(h) ? TtUntransWr : exec ? TtUntransRx : TtUntransRd;
    endcase
    req_d.no_write = 1'b0;  // ATS is not in the capabilities of this bridge's IOMMU
    req_d.ats_exec = 1'b0;
    req_d.device_id = {8'd0, hdr_req_id(h)};
    req_d.pid_valid = head[sel].pfx_valid;
    req_d.process_id = head[sel].pfx_valid ? head[sel].pfx[19:0] : '0;
    req_d.priv = head[sel].pfx_valid && head[sel].pfx[23];
    req_d.iova = hdr_addr(h);
    // Stream 2 * port + class, then the slot: the tag.
    req_d.tag = {sel, idx[sel]};
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      last_q <= '0;
      req_valid_q <= 1'b0;
      req_q <= '0;
    end else if (free) begin
      req_valid_q <= valid != '0;
      if (valid != '0) begin
        req_q <= req_d;
        last_q <= sel;
      end
    end
  end

  assign tr_req_valid_o = req_valid_q && iommu_enable_i;
  assign tr_req_o = req_q;

  // Answers.
  logic rsp_valid;
  tr_rsp_t rsp;
  logic [SelW-1:0] rsp_stream;
  tlp_head_t [NumIn-1:0] rsp_heads;
  tlp_head_t rsp_head;
  logic violation;

  always_comb begin
    if (iommu_enable_i) begin
      rsp_valid = tr_rsp_valid_i;
      rsp = tr_rsp_i;
    end else begin
      rsp_valid = req_valid_q;
      rsp = '0;
      rsp.tag = req_q.tag;
      rsp.status = (req_q.iova[63:56] == 8'd0) ? TrOk : TrUr;
      rsp.spa = req_q.iova[55:0];
    end
  end

  assign {rsp_stream, fill_idx_o} = rsp.tag;
  assign rsp_heads = fill_head_i;
  assign rsp_head = rsp_heads[rsp_stream];

  always_comb begin
    acs_violation_o = '0;
    acs_violation_o[rsp_stream[SelW-1:1]] = rsp_valid && violation;
    fill_valid_o = '0;
    fill_valid_o[rsp_stream[SelW-1:1]][rsp_stream[0]] = rsp_valid;
  end

  hb_resolve #(
    .NumRp(NumRp)
  ) u_resolve (
    .pma_i,
    .bus_offset_i,
    .ns_honour_i,
    .aperture_wb_i,
    .rp_cfg_i,
    .port_i(PortW'(rsp_stream[SelW-1:1])),
    .hdr_i(rsp_head.hdr),
    .status_i(rsp.status),
    .pbmt_i(rsp.pbmt),
    .spa_i(rsp.spa),
    .violation_o(violation),
    .res_o(fill_res_o)
  );

  assign tap_valid_o = rsp_valid;
  assign tap_port_o = PortW'(rsp_stream[SelW-1:1]);
  assign tap_head_o = rsp_head;
  assign tap_rsp_o = rsp;

  // The request is stable while it waits.
  tr_req_t prev_q;
  logic waited_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      prev_q <= '0;
      waited_q <= 1'b0;
    end else begin
      prev_q <= tr_req_o;
      waited_q <= tr_req_valid_o && !tr_req_ready_i;
    end
  end
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !waited_q || (tr_req_valid_o && tr_req_o == prev_q));

endmodule
