// SPDX-License-Identifier: MIT OR Apache-2.0

/// Watches a neutral TLP port: which beats are taken. A TLP's class is known from its first beat
/// and holds for the later ones.
module link_tap
  import tlp_pkg::*;
(
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// The port.
  input tlp_beat256_t beat_i,
  /// The port.
  input logic valid_i,
  /// The port.
  input tlp_ready_t ready_i,

  /// The beat is taken.
  output logic fire_o,
  /// A TLP has begun and not ended.
  output logic mid_o
);

  tlp_class_e cls;
  tlp_class_e cls_q;
  logic mid_q;

  logic unused;
  assign unused = ^beat_i.data;  // only the frame is watched

  assign cls = beat_i.sop ? hdr_class(beat_i.head.hdr) : cls_q;
  assign fire_o = valid_i && ready_i[cls];
  assign mid_o = mid_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      cls_q <= ClassP;
      mid_q <= 1'b0;
    end else if (fire_o) begin
      cls_q <= cls;
      mid_q <= !beat_i.eop;
    end
  end

  // The link keeps to the protocol.
  assert property (@(posedge clk_i) disable iff (!rst_ni) !fire_o || beat_i.sop == !mid_q);

endmodule
