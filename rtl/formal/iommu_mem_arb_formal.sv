// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `iommu_mem_arb`, for one client, chosen freely: each of its requests reaches the
/// port once and unchanged, or if it is beyond PAS is answered with one fault, before any other client is
/// served twice.
module iommu_mem_arb_formal
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1
) (
    /// Clock.
    input logic clk_i,
    /// The followed client, read in reset.
    input logic [3:0] who_i,
    /// Clients offer requests.
    input logic [NumMemClients-1:0] valid_i,
    /// Requests of the others.
    input mem_req_t other_i,
    /// Request of the followed client.
    input mem_req_t req_i,
    /// Port.
    input logic mem_ready_i,
    /// Port.
    input logic rsp_valid_i,
    /// Port.
    input logic [3:0] rsp_tag_i
);
  logic rst_n = 1'b0;
  logic [3:0] who_q;
  always_ff @(posedge clk_i) begin
    rst_n <= 1'b1;
    if (!rst_n) who_q <= who_i;
  end

  mem_req_t [NumMemClients-1:0] req;
  logic [NumMemClients-1:0] ready, rsp_valid;
  logic mem_valid;
  iommu_mem_req_t mem_req;
  iommu_mem_rsp_t rsp, client_rsp;
  always_comb begin
    rsp = '0;
    rsp.tag = rsp_tag_i;
    for (int unsigned i = 0; i < NumMemClients; i++) req[i] = 4'(i) == who_q ? req_i : other_i;
  end

  iommu_mem_arb #(
      .Cfg(CfgOther)
  ) dut (
      .clk_i,
      .rst_ni(rst_n),
      .client_valid_i(valid_i),
      .client_ready_o(ready),
      .client_req_i(req),
      .client_rsp_valid_o(rsp_valid),
      .mem_req_valid_o(mem_valid),
      .mem_req_ready_i(mem_ready_i),
      .mem_req_o(mem_req),
      .mem_rsp_valid_i(rsp_valid_i),
      .mem_rsp_i(rsp),
      .client_rsp_o(client_rsp)
  );

  logic taken, held_q = 1'b0, waiting_q = 1'b0, stalled_q = 1'b0;
  mem_req_t request_q;
  iommu_mem_req_t mem_req_q;
  // The client served last; those served since the followed one waits.
  logic [3:0] last_q = 4'(NumMemClients - 1);
  logic [3:0] others_q = 4'd0;
  assign taken = valid_i[who_q] && ready[who_q];
  // A request beyond PAS that waits for its fault.
  logic far, refuse, refused_q = 1'b0;
  logic [3:0] refused_who_q, granted;
  assign far = beyond_pas(CfgOther, {8'd0, req_i.addr[55:12]});
  assign refuse = ready[who_q] ? far : |ready && beyond_pas(CfgOther, {8'd0, other_i.addr[55:12]});
  always_comb begin
    granted = '0;
    for (int unsigned i = 0; i < NumMemClients; i++) if (ready[i]) granted = 4'(i);
  end

  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      held_q <= (taken && !far) || (held_q && !(mem_ready_i && mem_req.tag == who_q));
      if (taken) request_q <= req_i;
      refused_q <= refuse || (refused_q && rsp_valid_i);
      if (refuse) refused_who_q <= granted;
      waiting_q <= valid_i[who_q] && !ready[who_q];
      stalled_q <= mem_valid && !mem_ready_i;
      mem_req_q <= mem_req;
      for (int unsigned i = 0; i < NumMemClients; i++) if (ready[i]) last_q <= 4'(i);
      if (!valid_i[who_q] || taken) others_q <= 4'd0;
      else if (|ready) others_q <= others_q + 4'd1;
    end
  end

  // Clients between the one served last and the followed one, in the order of service.
  logic [3:0] between;
  assign between = who_q > last_q ? who_q - last_q - 4'd1 : who_q + 4'(NumMemClients) - last_q - 4'd1;

  always_comb begin
    assume (32'(who_i) < NumMemClients);
    assume (!rsp_valid_i || 32'(rsp_tag_i) < NumMemClients);
    assume (!waiting_q || valid_i[who_q]);
    if (rst_n) begin
      // Invariants of the induction.
      if (Invariants) begin
        assert (32'(who_q) < NumMemClients && 32'(last_q) < NumMemClients);
        assert (dut.above_last_q == NumMemClients'(10'h3fe << last_q));
        assert (others_q == 4'd0 || waiting_q);
        assert (refused_q == dut.refused_valid_q);
        assert (!refused_q || (refused_who_q == dut.refused_q && 32'(refused_who_q) < NumMemClients));
      end

      // One at a time, only who asks, and always one if there is room.
      assert ((ready & (ready - 10'd1)) == '0);
      assert ((ready & ~valid_i) == '0);
      assert ((|ready) == (|valid_i && !refused_q && (!mem_valid || mem_ready_i)));
      // At the port exactly from the cycle after it was taken until it is served, unchanged.
      assert (held_q == (mem_valid && mem_req.tag == who_q));
      assert (!held_q || (mem_req.addr == request_q.addr && mem_req.op == request_q.op &&
                          mem_req.wdata == request_q.wdata && mem_req.len_dw == request_q.len_dw &&
                          mem_req.pbmt == request_q.pbmt && mem_req.rcid == request_q.rcid &&
                          mem_req.mcid == request_q.mcid));
      assert (!stalled_q || (mem_valid && mem_req == mem_req_q));
      // No client overtakes twice.
      assert (5'(others_q) + 5'(between) < 5'(NumMemClients));
      // A response goes to the client of its tag and to no other, a fault to the client refused.
      assert (rsp_valid == (rsp_valid_i ? NumMemClients'(1) << rsp_tag_i :
                            refused_q ? NumMemClients'(1) << refused_who_q : '0));
      assert (rsp_valid_i ? client_rsp == rsp :
              !refused_q || (client_rsp.error && client_rsp.last && !client_rsp.poison));

      cover (held_q && others_q == 4'd0 && stalled_q && who_q == 4'd3);
      cover (refused_q && !rsp_valid_i && refused_who_q == who_q);
      cover (taken && others_q == 4'(NumMemClients - 1));
    end
  end
endmodule
