// SPDX-License-Identifier: MIT OR Apache-2.0

/// Joins the memory clients of the IOMMU on its memory port: round robin, the client's number as
/// tag. Each client has at most one request under way, so answers may come in any order. The
/// chosen request waits in a register, which keeps it stable while the port is not ready.
module iommu_mem_arb
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Client offers a request; stable until ready.
    input logic [NumMemClients-1:0] client_valid_i,
    /// The request is taken.
    output logic [NumMemClients-1:0] client_ready_o,
    /// The requests.
    input mem_req_t [NumMemClients-1:0] client_req_i,
    /// A response beat for the client.
    output logic [NumMemClients-1:0] client_rsp_valid_o,
    /// The beat.
    output iommu_mem_rsp_t client_rsp_o,

    /// Memory port: request offered.
    output logic mem_req_valid_o,
    /// Memory port: request taken.
    input logic mem_req_ready_i,
    /// Memory port: request.
    output iommu_mem_req_t mem_req_o,
    /// Memory port: response beat.
    input logic mem_rsp_valid_i,
    /// Memory port: response beat.
    input iommu_mem_rsp_t mem_rsp_i
);
  logic [NumMemClients-1:0] above_last_q, high, grant;
  logic take, wide, send;
  logic refused_valid_q;
  logic [3:0] refused_q;
  logic slot_valid_q;
  iommu_mem_req_t slot_q, slot_d;

  // Clients above the last one served come first.
  assign high = client_valid_i & above_last_q;
  assign grant = |high ? high & (~high + 1'b1) : client_valid_i & (~client_valid_i + 1'b1);
  assign take = (!slot_valid_q || mem_req_ready_i) && !refused_valid_q && |client_valid_i;
  assign client_ready_o = take ? grant : '0;

  always_comb begin
    slot_d = '0;
    for (int unsigned i = 0; i < NumMemClients; i++) begin
      if (grant[i]) begin
        slot_d.rcid = client_req_i[i].rcid;
        slot_d.mcid = client_req_i[i].mcid;
        slot_d.pbmt = client_req_i[i].pbmt;
        slot_d.op = client_req_i[i].op;
        slot_d.tag = 4'(i);
        slot_d.addr = client_req_i[i].addr;
        slot_d.len_dw = client_req_i[i].len_dw;
        slot_d.wdata = client_req_i[i].wdata;
      end
    end
  end

  // Nothing is beyond capabilities.PAS: such an access faults here, when the port has no answer to
  // hand on.
  assign wide = beyond_pas(Cfg, {8'd0, slot_d.addr[55:12]});
  assign send = take && !wide;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      slot_valid_q <= 1'b0;
      refused_valid_q <= 1'b0;
      above_last_q <= '0;
    end else begin
      if (take) above_last_q <= ~(grant | (grant - 1'b1));
      if (send) slot_valid_q <= 1'b1;
      else if (mem_req_ready_i) slot_valid_q <= 1'b0;
      refused_valid_q <= (take && wide) || (refused_valid_q && mem_rsp_valid_i);
    end
  end
  always_ff @(posedge clk_i) begin
    if (take) slot_q <= slot_d;
    if (take) refused_q <= slot_d.tag;
  end

  assign mem_req_valid_o = slot_valid_q;
  assign mem_req_o = slot_q;
  always_comb begin
    client_rsp_o = mem_rsp_i;
    if (refused_valid_q && !mem_rsp_valid_i) begin
      client_rsp_o.last = 1'b1;
      client_rsp_o.error = 1'b1;
      client_rsp_o.poison = 1'b0;
      client_rsp_o.tag = refused_q;
    end
    for (int unsigned i = 0; i < NumMemClients; i++) begin
      client_rsp_valid_o[i] = (mem_rsp_valid_i || refused_valid_q) && client_rsp_o.tag == 4'(i);
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !mem_rsp_valid_i || 32'(mem_rsp_i.tag) < NumMemClients);
endmodule
