// SPDX-License-Identifier: MIT OR Apache-2.0

/// One root port's way up: receive buffer, admission (PCIe 6.0 §7.5.1.1.3 Bus Master Enable, §6.12
/// Source Validation), slots for translation, release in the order of §2.4.1. A posted write is
/// released once all of its payload is here, so that it never holds the memory port for a device.
///
/// Handshake kinds: class-ready for the link, ready/valid for the others, valid only for `fill`.
module hb_ingress #(
  /// Beat type of the port.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Maximum payload size in bytes.
  parameter int unsigned MaxPayload = 512,
  /// Width of a slot number; 2**IdxW slots a class.
  parameter int unsigned IdxW = 3
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,
  /// Configuration of this root port.
  input port_pkg::port_cfg_t cfg_i,

  /// From the link.
  input beat_t rx_beat_i,
  /// From the link.
  input logic rx_valid_i,
  /// From the link.
  output tlp_pkg::tlp_ready_t rx_ready_o,

  /// Requests to translate, [0] posted, [1] non-posted.
  output logic [1:0] iss_valid_o,
  /// Taken.
  input logic [1:0] iss_ready_i,
  /// Their slots.
  output logic [1:0][IdxW-1:0] iss_idx_o,
  /// Their headers.
  output tlp_pkg::tlp_head_t [1:0] iss_head_o,

  /// Slot of an outcome.
  input logic [IdxW-1:0] fill_idx_i,
  /// Headers in that slot.
  output tlp_pkg::tlp_head_t [1:0] fill_head_o,
  /// The outcome is for the posted or the non-posted request in that slot.
  input logic [1:0] fill_valid_i,
  /// The outcome.
  input bridge_pkg::resolved_t fill_res_i,

  /// A beat of a posted request is released.
  output logic p_valid_o,
  /// It is taken.
  input logic p_take_i,
  /// The beat, with the header as it came.
  output beat_t p_beat_o,
  /// Outcome of its translation.
  output bridge_pkg::resolved_t p_res_o,

  /// A non-posted request is released.
  output logic np_valid_o,
  /// It is taken.
  input logic np_take_i,
  /// Its slot.
  output logic [IdxW-1:0] np_idx_o,
  /// Its header and prefix.
  output tlp_pkg::tlp_head_t np_head_o,
  /// Outcome of its translation.
  output bridge_pkg::resolved_t np_res_o,

  /// A beat of a completion is released.
  output logic cpl_valid_o,
  /// It is taken.
  input logic cpl_take_i,
  /// The beat.
  output beat_t cpl_beat_o,

  /// Slots that have an outcome and are not released, as `iss`.
  output logic [1:0][2**IdxW-1:0] answered_o,
  /// A request that violates Source Validation is taken from the link.
  output logic acs_violation_o,
  /// Something is held.
  output logic busy_o
);

  import tlp_pkg::*;

  localparam int unsigned DataW = $bits(beat_t) - $bits(tlp_head_t) - 2;
  localparam int unsigned MaxBeats = (8 * MaxPayload + DataW - 1) / DataW;
  localparam int unsigned PayloadBeats = 4 * MaxBeats;
  localparam int unsigned CountW = $clog2(PayloadBeats + 1);
  localparam int unsigned StampW = 24;

  typedef struct packed {
    logic eop;
    logic [DataW-1:0] data;
  } payload_t;

  beat_t [2:0] head;
  logic [2:0] valid;
  logic [2:0] in_order;
  logic [2:0] take;
  logic [StampW-1:0] np_stamp;
  logic [StampW-1:0] p_done_cnt;
  logic p_done;

  tlp_ingress #(
    .beat_t(beat_t),
    .MaxBeats(MaxBeats),
    .StampW(StampW)
  ) u_ingress (
    .clk_i,
    .rst_ni,
    .rx_beat_i,
    .rx_valid_i,
    .rx_ready_o,
    .beat_o(head),
    .valid_o(valid),
    .in_order_o(in_order),
    .np_stamp_o(np_stamp),
    .take_i(take),
    .p_done_i(p_done),
    .p_done_cnt_o(p_done_cnt)
  );

  // Admission: [0] posted, [1] non-posted.
  logic [1:0] refuse;
  logic [1:0][2:0] refuse_status;
  logic [1:0] violation;

  for (genvar c = 0; c < 2; c++) begin : gen_admit
    tlp_hdr_t hdr;
    logic [7:0] bus;
    assign bus = hdr[63:56];  // of the Requester ID
    assign hdr = head[c].head.hdr;
    assign violation[c] = cfg_i.acs.sv && !port_pkg::bus_below(cfg_i, bus);
    // AT = 11b is reserved (PCIe 6.0 §10.2.1).
    assign refuse[c] = violation[c] || !hdr_is_mem(hdr) || !cfg_i.master_en || hdr_at(hdr) == 2'b11;
    assign refuse_status[c] = violation[c] ? CplCa : CplUr;
  end

  logic [1:0] alloc_valid;
  logic [1:0] alloc_ready;
  logic [1:0] out_valid;
  logic [1:0] out_take;
  logic [1:0][IdxW-1:0] out_idx;
  tlp_head_t [1:0] out_head;
  logic [1:0][StampW-1:0] out_stamp;
  bridge_pkg::resolved_t [1:0] out_res;
  logic [1:0] slots_busy;

  for (genvar c = 0; c < 2; c++) begin : gen_slots
    hb_slots #(
      .IdxW(IdxW),
      .StampW(StampW)
    ) u_slots (
      .clk_i,
      .rst_ni,
      .alloc_valid_i(alloc_valid[c]),
      .alloc_ready_o(alloc_ready[c]),
      .alloc_head_i(head[c].head),
      .alloc_stamp_i((c == 0) ? '0 : np_stamp),
      .alloc_refuse_i(refuse[c]),
      .alloc_status_i(refuse_status[c]),
      .iss_valid_o(iss_valid_o[c]),
      .iss_ready_i(iss_ready_i[c]),
      .iss_idx_o(iss_idx_o[c]),
      .iss_head_o(iss_head_o[c]),
      .fill_idx_i,
      .fill_head_o(fill_head_o[c]),
      .fill_valid_i(fill_valid_i[c]),
      .fill_res_i,
      .out_valid_o(out_valid[c]),
      .out_ready_i(out_take[c]),
      .out_idx_o(out_idx[c]),
      .out_head_o(out_head[c]),
      .out_stamp_o(out_stamp[c]),
      .out_res_o(out_res[c]),
      .answered_o(answered_o[c]),
      .busy_o(slots_busy[c])
    );
  end

  // Posted: the header goes to a slot, the payload beside it.
  payload_t payload;
  logic payload_ready;
  logic payload_valid;
  logic payload_push;
  logic payload_pop;
  logic [CountW-1:0] whole_q;  // TLPs whose last beat is in the payload queue
  logic first_q;

  assign payload_push = valid[ClassP] && payload_ready && (!head[ClassP].sop || alloc_ready[0]);
  assign alloc_valid[0] = payload_push && head[ClassP].sop;
  assign take[ClassP] = payload_push;
  assign payload_pop = p_take_i;
  assign p_done = p_take_i && payload.eop;

  fifo #(
    .T(payload_t),
    .Depth(PayloadBeats)
  ) u_payload (
    .clk_i,
    .rst_ni,
    .wvalid_i(payload_push),
    .wready_o(payload_ready),
    .wdata_i('{eop: head[ClassP].eop, data: head[ClassP].data}),
    .rvalid_o(payload_valid),
    .rready_i(payload_pop),
    .rdata_o(payload),
    // verilator lint_off PINCONNECTEMPTY
    .depth_o()  // whole TLPs are counted instead
    // verilator lint_on PINCONNECTEMPTY
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      whole_q <= '0;
      first_q <= 1'b1;
    end else begin
      whole_q <= whole_q + CountW'(payload_push && head[ClassP].eop) - CountW'(p_done);
      if (p_take_i) first_q <= payload.eop;
    end
  end

  assign p_valid_o = out_valid[0] && whole_q != '0;
  assign p_beat_o = '{sop: first_q, eop: payload.eop, head: out_head[0], data: payload.data};
  assign p_res_o = out_res[0];
  assign out_take[0] = p_done;

  // Non-posted: payload, which only unsupported requests have, is discarded.
  assign alloc_valid[1] = valid[ClassNp] && head[ClassNp].sop;
  assign take[ClassNp] = valid[ClassNp] && (!head[ClassNp].sop || alloc_ready[1]);

  logic [StampW-1:0] lead;
  assign lead = p_done_cnt - out_stamp[1];
  assign np_valid_o = out_valid[1] && !lead[StampW-1];
  assign np_idx_o = out_idx[1];
  assign np_head_o = out_head[1];
  assign np_res_o = out_res[1];
  assign out_take[1] = np_take_i;

  assign acs_violation_o = |(alloc_valid & alloc_ready & violation);

  assign cpl_valid_o = valid[ClassCpl] && in_order[ClassCpl];
  assign cpl_beat_o = head[ClassCpl];
  assign take[ClassCpl] = cpl_take_i;

  // Slots keep the order of posted requests; only non-posted ones carry a stamp on.
  logic unused;
  assign unused = ^{in_order[1:0], out_idx[0], out_stamp[0]};

  assign busy_o = valid != '0 || slots_busy != '0;

  // What is released is there.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !p_take_i || (p_valid_o && payload_valid));
  assert property (@(posedge clk_i) disable iff (!rst_ni) !np_take_i || np_valid_o);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !cpl_take_i || cpl_valid_o);

endmodule
