// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `iommu_drain`: nothing completes before what it waits for (IOMMU §3.1.2, §5.5), and
/// everything completes soon after.
module iommu_drain_formal #(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1
) (
    /// Clock.
    input logic clk_i,
    /// A fence begins.
    input logic fence_i,
    /// It has PR or PW.
    input logic global_i,
    /// A write of ddtp begins.
    input logic ddtp_i,
    /// Marked requests are still under way.
    input logic busy_i,
    /// The bridge answers.
    input logic ack_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // Both are held until done.
  logic fence_q = 1'b0, ddtp_q = 1'b0, global_q = 1'b0;
  logic fence_done, ddtp_done, mark, drain_req, ack;
  assign ack = ack_i && drain_req;
  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      if (!fence_q) begin
        fence_q <= fence_i;
        global_q <= global_i;
      end else if (fence_done) fence_q <= 1'b0;
      ddtp_q <= ddtp_q ? !ddtp_done : ddtp_i;
    end
  end

  iommu_drain dut (
      .clk_i,
      .rst_ni(rst_n),
      .fence_valid_i(fence_q),
      .fence_global_i(global_q),
      .fence_done_o(fence_done),
      .ddtp_valid_i(ddtp_q),
      .ddtp_done_o(ddtp_done),
      .mark_o(mark),
      .marked_busy_i(busy_i),
      .drain_req_o(drain_req),
      .drain_ack_i(ack)
  );

  // Since the last mark: the front has been seen empty, then the bridge.
  logic marked_q = 1'b0, front_q = 1'b0, bridge_q = 1'b0, marked_fence_q = 1'b0;
  logic asked_q = 1'b0, idle_q = 1'b0;
  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      if (mark) begin
        marked_q <= 1'b1;
        front_q <= 1'b0;
        bridge_q <= 1'b0;
        marked_fence_q <= fence_q;
      end else begin
        if (marked_q && !busy_i) front_q <= 1'b1;
        if (front_q && ack) bridge_q <= 1'b1;
        if (fence_done || ddtp_done) marked_q <= 1'b0;
      end
      asked_q <= drain_req && !ack;
      idle_q <= (fence_q || ddtp_q) && !marked_q && !mark;
    end
  end

  always_comb begin
    if (rst_n) begin
      // Invariants of the induction.
      if (Invariants) begin
        assert (marked_q == (dut.state_q != 2'd0));
        assert (!marked_q || dut.for_fence_q == marked_fence_q);
        assert (!marked_q || (marked_fence_q ? fence_q && dut.global_q == global_q : ddtp_q && dut.global_q));
        assert (dut.state_q != 2'd1 || (!front_q && !bridge_q));
        assert (dut.state_q != 2'd2 || (front_q && !bridge_q));
        assert (dut.state_q != 2'd3 || (front_q && (bridge_q || !dut.global_q)));
      end

      // One ends at a time, only what waits, only after its own mark.
      assert (!(fence_done && ddtp_done));
      assert (!fence_done || (fence_q && marked_q && marked_fence_q));
      assert (!ddtp_done || (ddtp_q && marked_q && !marked_fence_q));
      // Only after the front is empty, and the bridge where that is asked for.
      assert (!(fence_done || ddtp_done) || front_q);
      assert (!(ddtp_done || (fence_done && global_q)) || bridge_q);
      // The bridge is asked when the front is empty, until it answers, and never for a local fence.
      assert (!drain_req || (front_q && (global_q || !marked_fence_q)));
      assert (!asked_q || drain_req);
      // Progress: no wait without a reason.
      assert (!idle_q);
      assert (!(marked_q && front_q) || drain_req || fence_done || ddtp_done);

      cover (fence_done && ddtp_q && !bridge_q);
      cover (ddtp_done && fence_q);
      cover (fence_done && bridge_q);
    end
  end
endmodule
