// SPDX-License-Identifier: MIT OR Apache-2.0

/// First stage of the front: chooses among those who ask, the rare ones first, and holds the request
/// for one cycle in which its contexts are looked up.
module iommu_accept
  import iommu_pkg::*;
  import iommu_int_pkg::*;
(
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Request of the bridge; ready/valid, stable until taken.
    input logic tr_req_valid_i,
    /// Request taken.
    output logic tr_req_ready_o,
    /// Request.
    input tr_req_t tr_req_i,
    /// Request of the debug interface; ready/valid.
    input logic dbg_req_valid_i,
    /// Request taken.
    output logic dbg_req_ready_o,
    /// Request.
    input tr_req_t dbg_req_i,
    /// A message asks for its device context; ready/valid.
    input logic dir_req_valid_i,
    /// Request taken.
    output logic dir_req_ready_o,
    /// Request.
    input dir_req_t dir_req_i,
    /// Mark the request that is held, one cycle.
    input logic mark_i,

    /// A request is held.
    output logic valid_o,
    /// It goes on to the next stage.
    input logic advance_i,
    /// Who asks.
    output kind_e kind_o,
    /// The request.
    output tr_req_t req_o,
    /// It has been marked.
    output logic marked_o
);
  kind_e kind;
  tr_req_t req;
  logic ready;

  always_comb begin
    kind = KindTr;
    req = tr_req_i;
    if (dir_req_valid_i) begin
      kind = KindDir;
      req = '0;
      req.device_id = dir_req_i.device_id;
    end else if (dbg_req_valid_i) begin
      kind = KindDbg;
      req = dbg_req_i;
    end
  end
  assign ready = !valid_o || advance_i;
  assign tr_req_ready_o = ready && kind == KindTr;
  assign dbg_req_ready_o = ready && kind == KindDbg;
  assign dir_req_ready_o = ready && kind == KindDir;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      marked_o <= 1'b0;
    end else begin
      if (ready) valid_o <= tr_req_valid_i || dbg_req_valid_i || dir_req_valid_i;
      // A request taken in the cycle of the mark counts as accepted before it.
      marked_o <= mark_i || (marked_o && !ready);
    end
  end
  always_ff @(posedge clk_i) begin
    if (ready) begin
      req_o <= req;
      kind_o <= kind;
    end
  end

  // Requests are stable while not taken.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(tr_req_valid_i && !tr_req_ready_o) || (tr_req_valid_i && $stable(tr_req_i)));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(dbg_req_valid_i && !dbg_req_ready_o) || (dbg_req_valid_i && $stable(dbg_req_i)));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(dir_req_valid_i && !dir_req_ready_o) || (dir_req_valid_i && $stable(dir_req_i)));
endmodule
