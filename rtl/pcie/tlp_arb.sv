// SPDX-License-Identifier: MIT OR Apache-2.0

/// Packet arbiter in front of a sending port. Only TLPs whose class the receiver can take compete,
/// so a posted TLP never waits behind a blocked non-posted one (PCIe 6.0 §2.4.1); round robin
/// among the rest; from its first to its last beat a TLP has the port for itself.
///
/// Handshake kinds: ready/valid in, class-ready out.
module tlp_arb #(
  /// Beat type of the port.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Number of streams.
  parameter int unsigned NumIn = 2,
  /// Class of each stream, two bits a stream (`tlp_pkg::tlp_class_e`).
  parameter logic [NumIn-1:0][1:0] Class = '0,
  localparam int unsigned SelW = (NumIn > 1) ? $clog2(NumIn) : 1
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Beat at the head of each stream.
  input beat_t [NumIn-1:0] beat_i,
  /// The stream has a beat for this port.
  input logic [NumIn-1:0] valid_i,
  /// The beat is taken.
  output logic [NumIn-1:0] take_o,

  /// Towards the receiver.
  output beat_t tx_beat_o,
  /// Towards the receiver.
  output logic tx_valid_o,
  /// Room of the receiver, a bit a class.
  input tlp_pkg::tlp_ready_t tx_ready_i,
  /// The stream that `tx_beat_o` is from.
  output logic [SelW-1:0] sel_o
);

  logic locked_q;
  logic [SelW-1:0] last_q;  // the stream that has or had the port
  logic [NumIn-1:0] able;
  logic [SelW-1:0] sel;
  logic found;

  for (genvar i = 0; i < NumIn; i++) begin : gen_able
    assign able[i] = valid_i[i] && tx_ready_i[Class[i]];
  end

  // The first able stream after the last one served.
  always_comb begin
    sel = last_q;
    found = locked_q && able[last_q];
    if (!locked_q) begin
      for (int unsigned i = 0; i < NumIn; i++) begin
        if (able[i] && !found) begin
          sel = SelW'(i);
          found = 1'b1;
        end
      end
      for (int unsigned i = NumIn; i > 0; i--) begin
        if (able[i-1] && (i - 1) > 32'(last_q)) sel = SelW'(i - 1);
      end
    end
  end

  assign sel_o = sel;
  assign tx_beat_o = beat_i[sel];
  assign tx_valid_o = found;

  always_comb begin
    take_o = '0;
    take_o[sel] = found;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      locked_q <= 1'b0;
      last_q <= '0;
    end else if (found) begin
      locked_q <= !beat_i[sel].eop;
      last_q <= sel;
    end
  end

  // No TLP is interleaved with another.
  assert property (@(posedge clk_i) disable iff (!rst_ni) !found || beat_i[sel].sop == !locked_q);
  // Streams carry the class they were declared with.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(found && beat_i[sel].sop) || tlp_pkg::hdr_class(beat_i[sel].head.hdr) == Class[sel]);

endmodule
