// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `fifo`: one element, chosen freely among those that go in, comes out once, in its
/// place and unchanged.
module fifo_formal #(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1
) (
    /// Clock.
    input logic clk_i,
    /// An element is offered.
    input logic wvalid_i,
    /// The element.
    input logic [3:0] wdata_i,
    /// The element at the head is taken.
    input logic rready_i,
    /// Follow the element that goes in now.
    input logic track_i
);
  localparam int unsigned Depth = 5;  // no power of two: the pointers wrap early

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic wready, rvalid;
  logic [3:0] rdata;
  logic [2:0] depth;

  fifo #(
      .T(logic [3:0]),
      .Depth(Depth)
  ) dut (
      .clk_i,
      .rst_ni(rst_n),
      .wvalid_i,
      .wready_o(wready),
      .wdata_i,
      .rvalid_o(rvalid),
      .rready_i,
      .rdata_o(rdata),
      .depth_o(depth)
  );

  logic push, pop;
  assign push = wvalid_i && wready;
  assign pop = rready_i && rvalid;

  // The followed element: in the queue, with so many before it.
  logic inside_q = 1'b0;
  logic done_q = 1'b0;
  logic [2:0] ahead_q;
  logic [3:0] data_q;
  logic [2:0] level_q = 3'd0;
  logic out;
  assign out = inside_q && ahead_q == 3'd0 && pop;

  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      level_q <= level_q + 3'(push) - 3'(pop);
      if (push && track_i && !inside_q && !done_q) begin
        inside_q <= 1'b1;
        ahead_q <= level_q - 3'(pop);
        data_q <= wdata_i;
      end else if (inside_q && pop) begin
        ahead_q <= ahead_q - 3'd1;
        if (out) begin
          inside_q <= 1'b0;
          done_q <= 1'b1;
        end
      end
    end
  end

  function automatic logic [2:0] wrap(logic [2:0] ptr, logic [2:0] distance);
    return 3'((4'(ptr) + 4'(distance)) % 4'(Depth));
  endfunction

  always_comb begin
    if (rst_n) begin
      // Progress: room unless full, an element unless empty; the level is what went in and not out.
      assert (depth == level_q && level_q <= 3'(Depth));
      assert (wready == (level_q != 3'(Depth)));
      assert (rvalid == (level_q != 3'd0));
      // Invariants of the induction: where the pointers and the followed element are.
      if (Invariants) begin
        assert (dut.rptr_q < 3'(Depth) && dut.wptr_q == wrap(dut.rptr_q, level_q));
        assert (!inside_q || dut.mem_q[wrap(dut.rptr_q, ahead_q)] == data_q);
      end

      // Order and data.
      assert (!inside_q || ahead_q < level_q);
      assert (!out || rdata == data_q);
      cover (out && data_q == 4'd9);
      cover (level_q == 3'(Depth) && inside_q && ahead_q == 3'd3);
    end
  end
endmodule
