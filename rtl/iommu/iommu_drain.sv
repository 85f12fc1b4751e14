// SPDX-License-Identifier: MIT OR Apache-2.0

/// Waits until what is under way has ended, for a fence (IOMMU §3.1.2) or for a write of ddtp
/// (§5.5): first the requests accepted by the IOMMU, then, when global visibility is asked for,
/// those that the bridge still holds.
module iommu_drain (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// A fence waits; held until done.
    input logic fence_valid_i,
    /// The fence asks for global visibility (PR or PW).
    input logic fence_global_i,
    /// The fence may complete, one cycle.
    output logic fence_done_o,
    /// A ddtp write waits; held until done.
    input logic ddtp_valid_i,
    /// The write is complete, one cycle.
    output logic ddtp_done_o,

    /// Mark what is under way in the front, one cycle.
    output logic mark_o,
    /// Something marked is still under way.
    input logic marked_busy_i,

    /// To the bridge: drain; held until acknowledged.
    output logic drain_req_o,
    /// From the bridge: drained, one cycle.
    input logic drain_ack_i
);
  typedef enum logic [1:0] { StIdle, StFront, StBridge, StDone } state_e;
  state_e state_q, state_d;
  logic for_fence_q, global_q, start;

  assign start = state_q == StIdle && (fence_valid_i || ddtp_valid_i);
  assign mark_o = start;

  always_comb begin
    state_d = state_q;
    unique case (state_q)
      StIdle:   if (start) state_d = StFront;
      StFront:  if (!marked_busy_i) state_d = global_q ? StBridge : StDone;
      StBridge: if (drain_ack_i) state_d = StDone;
      default:  state_d = StIdle;
    endcase
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      for_fence_q <= 1'b0;
      global_q <= 1'b0;
    end else begin
      state_q <= state_d;
      if (start) begin
        for_fence_q <= fence_valid_i;
        global_q <= fence_valid_i ? fence_global_i : 1'b1;
      end
    end
  end

  assign drain_req_o = state_q == StBridge;
  assign fence_done_o = state_q == StDone && for_fence_q;
  assign ddtp_done_o = state_q == StDone && !for_fence_q;

  assert property (@(posedge clk_i) disable iff (!rst_ni) !drain_ack_i || drain_req_o);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !fence_done_o || fence_valid_i);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !ddtp_done_o || ddtp_valid_i);
endmodule
