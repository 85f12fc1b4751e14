// SPDX-License-Identifier: MIT OR Apache-2.0

/// Synchronous first-word fall-through FIFO.
///
/// Handshake kind: ready/valid on both sides; neither `wready_o` nor `rvalid_o` depends on an
/// input in the same cycle, so chains of FIFOs make no combinational path.
module fifo #(
  /// Element type.
  parameter type T = logic [7:0],
  /// Elements held; any number from 1.
  parameter int unsigned Depth = 2
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// An element is offered.
  input logic wvalid_i,
  /// There is room.
  output logic wready_o,
  /// The element offered.
  input T wdata_i,

  /// An element is available.
  output logic rvalid_o,
  /// The element is taken.
  input logic rready_i,
  /// The oldest element.
  output T rdata_o,

  /// Elements held.
  output logic [$clog2(Depth+1)-1:0] depth_o
);

  localparam int unsigned PtrW = (Depth > 1) ? $clog2(Depth) : 1;
  localparam int unsigned CountW = $clog2(Depth + 1);

  // Not reset, so that it maps to memory cells.
  T mem_q[Depth];

  logic [PtrW-1:0] wptr_q;
  logic [PtrW-1:0] rptr_q;
  logic [CountW-1:0] count_q;
  logic push;
  logic pop;

  function automatic logic [PtrW-1:0] advance(logic [PtrW-1:0] ptr);
    return (ptr == PtrW'(Depth - 1)) ? '0 : ptr + PtrW'(1);
  endfunction

  assign wready_o = count_q != CountW'(Depth);
  assign rvalid_o = count_q != '0;
  assign rdata_o = mem_q[rptr_q];
  assign depth_o = count_q;
  assign push = wvalid_i && wready_o;
  assign pop = rready_i && rvalid_o;

  always_ff @(posedge clk_i) begin
    if (push) mem_q[wptr_q] <= wdata_i;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wptr_q <= '0;
      rptr_q <= '0;
      count_q <= '0;
    end else begin
      if (push) wptr_q <= advance(wptr_q);
      if (pop) rptr_q <= advance(rptr_q);
      count_q <= count_q + CountW'(push) - CountW'(pop);
    end
  end

  // The count never leaves its range and always is the distance of the pointers.
  assert property (@(posedge clk_i) disable iff (!rst_ni) count_q <= CountW'(Depth));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(count_q == '0 || count_q == CountW'(Depth)) || wptr_q == rptr_q);

endmodule
