// SPDX-License-Identifier: MIT OR Apache-2.0

/// Says whether the oldest queued TLP of a non-posted or completion queue may leave: not before
/// every posted TLP that arrived ahead of it (PCIe 6.0 §2.4.1, Table 2-40, column 2).
///
/// Each arriving TLP records how many posted TLPs had arrived. A TLP whose record the departures
/// have reached becomes a credit; a credit stays, so posted TLPs may overtake a blocked queue for
/// any length of time without the counters wrapping past its records.
module tlp_class_fifo_gate #(
  /// TLPs the gated queue can hold.
  parameter int unsigned Depth = 8,
  /// Width of the posted counters; more than `Depth` plus the posted queue's TLPs must fit in
  /// half their range.
  parameter int unsigned SeqW = 8
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,
  /// Posted TLPs arrived so far, modulo the counter.
  input logic [SeqW-1:0] posted_in_i,
  /// Posted TLPs departed so far, modulo the counter.
  input logic [SeqW-1:0] posted_out_i,
  /// A TLP enters the gated queue.
  input logic push_i,
  /// The oldest TLP of the gated queue leaves; only with `go_o`.
  input logic pop_i,
  /// The oldest TLP may leave.
  output logic go_o
);

  localparam int unsigned CreditW = $clog2(Depth + 1);

  logic [SeqW-1:0] record;
  logic [SeqW-1:0] ahead;
  logic record_valid;
  logic clear;
  logic room;
  logic [CreditW-1:0] credit_q;
  logic [CreditW-1:0] waiting;

  fifo #(
    .T(logic [SeqW-1:0]),
    .Depth(Depth)
  ) i_records (
    .clk_i,
    .rst_ni,
    .wvalid_i(push_i),
    .wready_o(room),
    .wdata_i(posted_in_i),
    .rvalid_o(record_valid),
    .rready_i(clear),
    .rdata_o(record),
    .depth_o(waiting)
  );

  // Posted TLPs still ahead of the oldest record; zero or negative once they have left.
  assign ahead = record - posted_out_i;
  assign clear = record_valid && (ahead == '0 || ahead[SeqW-1]);
  assign go_o = credit_q != '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) credit_q <= '0;
    else credit_q <= credit_q + CreditW'(clear) - CreditW'(pop_i);
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !pop_i || go_o);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !push_i || room);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      32'(credit_q) + 32'(waiting) <= 32'(Depth));

endmodule
