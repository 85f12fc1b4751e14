// SPDX-License-Identifier: MIT OR Apache-2.0

/// TLP buffer with one queue for each traffic class, keeping the ordering of PCIe 6.0 §2.4.1:
/// nothing passes a posted TLP that arrived earlier; posted TLPs pass blocked non-posted TLPs and
/// completions, and these two pass each other. Relaxed and ID-based Ordering are permissions
/// that are not used. Within a class TLPs keep their order.
///
/// Handshake kind: class-ready on both sides (`tlp_pkg`). TLPs are cut through: the first beat may
/// leave before the last has arrived.
module tlp_class_fifo #(
  /// Beat type.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Largest payload in bytes.
  parameter int unsigned MaxPayload = 512,
  /// Depth of the posted queue in beats; by default two maximum TLPs.
  parameter int unsigned PostedDepth =
      2 * ((8 * MaxPayload) / ($bits(beat_t) - $bits(tlp_pkg::tlp_head_t) - 2)),
  /// Depth of the completion queue in beats; by default two maximum TLPs.
  parameter int unsigned CplDepth = PostedDepth,
  /// Depth of the non-posted queue in beats; by default eight TLPs.
  parameter int unsigned NonPostedDepth =
      8 * ((255 + $bits(beat_t) - $bits(tlp_pkg::tlp_head_t) - 2)
           / ($bits(beat_t) - $bits(tlp_pkg::tlp_head_t) - 2))
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Beat in.
  input beat_t rx_beat_i,
  /// Beat in is valid.
  input logic rx_valid_i,
  /// Room for a whole TLP of the class, or in the midst of one.
  output tlp_pkg::tlp_ready_t rx_ready_o,

  /// Beat out.
  output beat_t tx_beat_o,
  /// Beat out is valid.
  output logic tx_valid_o,
  /// Ready of each class.
  input tlp_pkg::tlp_ready_t tx_ready_i
);
  import tlp_pkg::*;

  localparam int unsigned DataW = $bits(beat_t) - $bits(tlp_head_t) - 2;
  localparam int unsigned MaxBeats = (8 * MaxPayload + DataW - 1) / DataW;
  // The largest non-posted payload is the 32 bytes of a 128-bit compare and swap.
  localparam int unsigned NpMaxBeats = (256 + DataW - 1) / DataW;
  // Every counter difference that a gate forms stays within half of this range.
  localparam int unsigned SeqW = $clog2(PostedDepth + CplDepth + NonPostedDepth + 2) + 1;

  // Index of a class's queue, as `tlp_class_e`.
  localparam int unsigned P = 0;
  localparam int unsigned Np = 1;
  localparam int unsigned Cpl = 2;

  // Input: the class of a TLP is in its first beat.
  tlp_class_e in_class;
  tlp_class_e in_class_q;
  logic in_mid_q;
  logic in_fire;

  assign in_class = in_mid_q ? in_class_q : hdr_class(rx_beat_i.head.hdr);
  assign in_fire = rx_valid_i && rx_ready_o[in_class];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      in_mid_q <= 1'b0;
      in_class_q <= ClassP;
    end else if (in_fire) begin
      in_mid_q <= !rx_beat_i.eop;
      in_class_q <= in_class;
    end
  end

  // Queues.
  logic [2:0] push;
  logic [2:0] pop;
  logic [2:0] room;
  logic [2:0] space;
  logic [2:0] head_valid;
  beat_t [2:0] head;

  logic [$clog2(PostedDepth+1)-1:0] p_level;
  logic [$clog2(NonPostedDepth+1)-1:0] np_level;
  logic [$clog2(CplDepth+1)-1:0] cpl_level;

  assign room[P] = 32'(p_level) + MaxBeats <= PostedDepth;
  assign room[Np] = 32'(np_level) + NpMaxBeats <= NonPostedDepth;
  assign room[Cpl] = 32'(cpl_level) + MaxBeats <= CplDepth;

  always_comb begin
    for (int unsigned c = 0; c < 3; c++) begin
      rx_ready_o[c] = room[c] || (in_mid_q && in_class_q == tlp_class_e'(2'(c)));
      push[c] = in_fire && in_class == tlp_class_e'(2'(c));
    end
  end

  fifo #(.T(beat_t), .Depth(PostedDepth)) i_posted (
    .clk_i, .rst_ni,
    .wvalid_i(push[P]), .wready_o(space[P]), .wdata_i(rx_beat_i),
    .rvalid_o(head_valid[P]), .rready_i(pop[P]), .rdata_o(head[P]),
    .depth_o(p_level)
  );

  fifo #(.T(beat_t), .Depth(NonPostedDepth)) i_non_posted (
    .clk_i, .rst_ni,
    .wvalid_i(push[Np]), .wready_o(space[Np]), .wdata_i(rx_beat_i),
    .rvalid_o(head_valid[Np]), .rready_i(pop[Np]), .rdata_o(head[Np]),
    .depth_o(np_level)
  );

  fifo #(.T(beat_t), .Depth(CplDepth)) i_completion (
    .clk_i, .rst_ni,
    .wvalid_i(push[Cpl]), .wready_o(space[Cpl]), .wdata_i(rx_beat_i),
    .rvalid_o(head_valid[Cpl]), .rready_i(pop[Cpl]), .rdata_o(head[Cpl]),
    .depth_o(cpl_level)
  );

  // Order between the queues.
  logic [SeqW-1:0] posted_in_q;
  logic [SeqW-1:0] posted_out_q;
  logic [2:0] go;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      posted_in_q <= '0;
      posted_out_q <= '0;
    end else begin
      posted_in_q <= posted_in_q + SeqW'(push[P] && rx_beat_i.sop);
      posted_out_q <= posted_out_q + SeqW'(pop[P] && head[P].sop);
    end
  end

  assign go[P] = 1'b1;

  tlp_class_fifo_gate #(.Depth(NonPostedDepth), .SeqW(SeqW)) i_np_gate (
    .clk_i, .rst_ni,
    .posted_in_i(posted_in_q), .posted_out_i(posted_out_q),
    .push_i(push[Np] && rx_beat_i.sop), .pop_i(pop[Np] && head[Np].sop), .go_o(go[Np])
  );

  tlp_class_fifo_gate #(.Depth(CplDepth), .SeqW(SeqW)) i_cpl_gate (
    .clk_i, .rst_ni,
    .posted_in_i(posted_in_q), .posted_out_i(posted_out_q),
    .push_i(push[Cpl] && rx_beat_i.sop), .pop_i(pop[Cpl] && head[Cpl].sop), .go_o(go[Cpl])
  );

  // Output: round robin among the classes that may go and that the receiver takes; a TLP once
  // begun is finished.
  logic [2:0] want;
  logic [1:0] out_sel;
  logic [1:0] out_sel_q;
  logic out_mid_q;
  logic out_fire;

  assign want = head_valid & go & tx_ready_i;

  always_comb begin
    out_sel = out_sel_q;
    if (!out_mid_q) begin
      unique case (out_sel_q)
        2'd0: out_sel = want[1] ? 2'd1 : want[2] ? 2'd2 : 2'd0;
        2'd1: out_sel = want[2] ? 2'd2 : want[0] ? 2'd0 : 2'd1;
        default: out_sel = want[0] ? 2'd0 : want[1] ? 2'd1 : 2'd2;
      endcase
    end
  end

  assign tx_beat_o = head[out_sel];
  assign tx_valid_o = out_mid_q ? head_valid[out_sel] : want[out_sel];
  assign out_fire = tx_valid_o && tx_ready_i[out_sel];

  always_comb begin
    pop = '0;
    pop[out_sel] = out_fire;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      out_sel_q <= '0;
      out_mid_q <= 1'b0;
    end else if (out_fire) begin
      out_sel_q <= out_sel;
      out_mid_q <= !tx_beat_o.eop;
    end
  end

  // A TLP is no larger than the room promised for it, and begins with `sop` and nowhere else.
  assert property (@(posedge clk_i) disable iff (!rst_ni) (push & ~space) == '0);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !in_fire || rx_beat_i.sop == !in_mid_q);
  // The receiver keeps a class's ready up to the end of the TLP.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !out_mid_q || tx_ready_i[out_sel_q]);

endmodule
