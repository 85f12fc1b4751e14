// SPDX-License-Identifier: MIT OR Apache-2.0

/// The receive buffer of a port: one queue a class, and what is needed to keep PCIe's order
/// between the queues (PCIe 6.0 §2.4.1): a non-posted request or completion does not pass a posted
/// one that arrived before it; a posted one passes everything but posted ones.
///
/// Each class is a stream of its own, so that its head can be routed by its own header. Every
/// non-posted and completion TLP carries a stamp, the number of posted TLPs that arrived before it;
/// it is in order once that many posted TLPs are done. When a posted TLP is done, the user says:
/// on leaving this buffer, or later if the user holds posted TLPs for a while.
///
/// Handshake kinds: class-ready in, ready/valid out (stable while not taken).
module tlp_ingress #(
  /// Beat type of the port.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Beats of the largest TLP.
  parameter int unsigned MaxBeats = 16,
  /// Beats held of each class, at least MaxBeats for those with data.
  parameter int unsigned DepthP = 2 * MaxBeats,
  /// Beats of non-posted requests; none but the small ones with data has more than one.
  parameter int unsigned DepthNp = 16,
  /// Beats of completions.
  parameter int unsigned DepthCpl = 2 * MaxBeats,
  /// Width of the stamps; more posted TLPs than half its range never pass one blocked request.
  parameter int unsigned StampW = 24
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// From the link.
  input beat_t rx_beat_i,
  /// From the link.
  input logic rx_valid_i,
  /// Room for a whole TLP, a bit a class.
  output tlp_pkg::tlp_ready_t rx_ready_o,

  /// Head beat of each class.
  output beat_t [2:0] beat_o,
  /// There is a head beat.
  output logic [2:0] valid_o,
  /// All posted TLPs that arrived before the head are done; always 1 for posted ones.
  output logic [2:0] in_order_o,
  /// Stamp of the non-posted head.
  output logic [StampW-1:0] np_stamp_o,
  /// The head beat is taken.
  input logic [2:0] take_i,

  /// A posted TLP is done.
  input logic p_done_i,
  /// Posted TLPs done so far.
  output logic [StampW-1:0] p_done_cnt_o
);

  import tlp_pkg::*;

  typedef struct packed {
    logic [StampW-1:0] stamp;
    beat_t beat;
  } stamped_t;

  // The largest non-posted payload is the 32 bytes of a 128-bit compare and swap.
  localparam int unsigned DataW = $bits(beat_t) - $bits(tlp_head_t) - 2;
  localparam int unsigned NpMaxBeats = (256 + DataW - 1) / DataW;

  tlp_class_e cls;
  tlp_class_e cls_q;
  logic mid_q;
  logic fire;
  logic [StampW-1:0] p_in_q;
  logic [StampW-1:0] p_done_q;
  logic [StampW-1:0] stamp_q;
  logic [StampW-1:0] stamp;
  stamped_t [2:0] head;
  logic [2:0] room_mid;
  logic [2:0] room_sop;

  assign cls = rx_beat_i.sop ? hdr_class(rx_beat_i.head.hdr) : cls_q;
  assign fire = rx_valid_i && rx_ready_o[cls];
  assign stamp = rx_beat_i.sop ? p_in_q : stamp_q;

  always_comb begin
    rx_ready_o = room_sop;
    if (mid_q) rx_ready_o[cls_q] = room_mid[cls_q];
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      cls_q <= ClassP;
      mid_q <= 1'b0;
      p_in_q <= '0;
      p_done_q <= '0;
      stamp_q <= '0;
    end else begin
      if (fire) begin
        cls_q <= cls;
        mid_q <= !rx_beat_i.eop;
        stamp_q <= stamp;
        if (cls == ClassP && rx_beat_i.eop) p_in_q <= p_in_q + StampW'(1);
      end
      if (p_done_i) p_done_q <= p_done_q + StampW'(1);
    end
  end

  for (genvar c = 0; c < 3; c++) begin : gen_class
    localparam int unsigned Depth = (c == 0) ? DepthP : (c == 1) ? DepthNp : DepthCpl;
    localparam int unsigned Room = (c == 1) ? NpMaxBeats : MaxBeats;
    logic [$clog2(Depth+1)-1:0] depth;

    fifo #(
      .T(stamped_t),
      .Depth(Depth)
    ) u_fifo (
      .clk_i,
      .rst_ni,
      .wvalid_i(fire && cls == tlp_class_e'(c)),
      .wready_o(room_mid[c]),
      .wdata_i('{stamp: stamp, beat: rx_beat_i}),
      .rvalid_o(valid_o[c]),
      .rready_i(take_i[c]),
      .rdata_o(head[c]),
      .depth_o(depth)
    );

    assign beat_o[c] = head[c].beat;
    assign room_sop[c] = 32'(depth) + Room <= Depth;

    logic [StampW-1:0] lead;
    assign lead = p_done_q - head[c].stamp;
    assign in_order_o[c] = c == 0 || !lead[StampW-1];
  end

  assign np_stamp_o = head[ClassNp].stamp;
  assign p_done_cnt_o = p_done_q;

  // A TLP is one run of beats: its first beat is the only one with sop.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(rx_valid_i && rx_ready_o[cls]) || rx_beat_i.sop == !mid_q);
  // Nothing is taken that is not there, and no more posted TLPs are done than arrived.
  assert property (@(posedge clk_i) disable iff (!rst_ni) (take_i & ~valid_o) == '0);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !p_done_i || p_done_q != p_in_q);

endmodule
