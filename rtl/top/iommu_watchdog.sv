// SPDX-License-Identifier: MIT OR Apache-2.0

/// Ends the simulation when a block of the IOMMU has work and does not go on, and names it: the scope
/// in the message is that of the block. What waits for devices, which may take their time, does not
/// count. For simulation only, bound to the blocks below.
module iommu_watchdog #(
    /// Cycles in one state that are too many, for a block that waits for the memory port alone.
    parameter int unsigned Limit = 10_000,
    /// Cycles that a block has more for each block behind it, so that the innermost complains first.
    parameter int unsigned Step = 500,
    /// Cycles of one piece of work that are too many, whatever the states.
    parameter int unsigned WorkLimit = 30_000
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,
    /// The block has work.
    input logic busy_i,
    /// What it does.
    input logic [3:0] state_i,
    /// Blocks that it may wait for, one behind the other.
    input logic [2:0] behind_i
);
  logic [3:0] state_q;
  int unsigned cycles_q, work_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= '0;
      cycles_q <= '0;
      work_q <= '0;
    end else begin
      state_q <= state_i;
      work_q <= busy_i ? work_q + 1 : '0;
      cycles_q <= busy_i && state_i == state_q ? cycles_q + 1 : '0;
    end
  end
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      cycles_q < Limit + Step * 32'(behind_i))
  else $error("stuck in state %0d for %0d cycles", state_q, cycles_q);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      work_q < WorkLimit + Step * 32'(behind_i))
  else $error("at work for %0d cycles, now in state %0d", work_q, state_q);
endmodule

bind iommu_mem_arb iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i((slot_valid_q && !mem_req_ready_i) || (|client_valid_i && !take)),
    .state_i('0), .behind_i(3'd0)
);
bind iommu_ddt_walker iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle), .state_i(4'(state_q)), .behind_i(3'd1)
);
bind iommu_msi_walker iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle), .state_i(4'(state_q)), .behind_i(3'd1)
);
bind iommu_fq iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle), .state_i(4'(state_q)), .behind_i(3'd1)
);
// A walk in the second stage, or of it.
bind iommu_pt_walker iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle), .state_i(4'(state_q)),
    .behind_i(s2_valid_o ? 3'd2 : 3'd1)
);
bind iommu_pdt_walker iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle), .state_i(4'(state_q)), .behind_i(3'd2)
);
// Faults of theirs wait for the fault queue.
bind iommu_msi iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle || |sendable), .state_i(4'(state_q)), .behind_i(3'd2)
);
bind iommu_mrif iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle), .state_i(4'(state_q)), .behind_i(3'd2)
);
bind iommu_front iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(r_valid_q && !r_done), .state_i(4'(state_q)), .behind_i(3'd3)
);
// They wait for the front.
bind iommu_accept iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i((tr_req_valid_i || dbg_req_valid_i || dir_req_valid_i) && !ready),
    .state_i('0), .behind_i(3'd4)
);
bind iommu_drain iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle), .state_i(4'(state_q)), .behind_i(3'd4)
);
bind iommu_dbg iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(busy_q), .state_i({3'd0, asked_q}), .behind_i(3'd5)
);
bind iommu_pq iommu_watchdog u_watchdog (
    .clk_i, .rst_ni, .busy_i(state_q != StIdle && !(rsp_valid_q && !rsp_ready_i)),
    .state_i(4'(state_q)), .behind_i(3'd5)
);
// Its fences wait for the drain, and for devices that complete invalidations.
bind iommu_cq iommu_watchdog u_watchdog (
    .clk_i, .rst_ni,
    .busy_i(!exec && state_q != StAts && !(state_q == StFence && ats_busy_i) &&
            (state_q != StIdle || (cfg_i.en && on_q && !cqmf_q && !cmd_ill_q && !cmd_to_q &&
                                   head_q != (cfg_i.index & mask)))),
    .state_i(4'(state_q)), .behind_i(3'd5)
);
