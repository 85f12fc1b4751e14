// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `hb_slots`, for one request, chosen freely: it is issued once, or never if it is
/// refused, and released once, in the order of arrival, with its own outcome and not before that.
module hb_slots_formal #(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1
) (
    /// Clock.
    input logic clk_i,
    /// A request arrives.
    input logic alloc_i,
    /// Its header.
    input tlp_pkg::tlp_head_t head_i,
    /// Its stamp.
    input logic [1:0] stamp_i,
    /// It is refused.
    input logic refuse_i,
    /// With this status.
    input logic [2:0] status_i,
    /// Follow the request that arrives now.
    input logic track_i,
    /// A request is issued.
    input logic iss_ready_i,
    /// An outcome comes for a request that has been issued.
    input logic fill_i,
    /// Its slot.
    input logic [1:0] fill_idx_i,
    /// The outcome.
    input bridge_pkg::resolved_t res_i,
    /// A request is released.
    input logic out_ready_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic alloc_ready, iss_valid, out_valid, fill, busy;
  logic [1:0] iss_idx, out_idx, out_stamp;
  tlp_pkg::tlp_head_t iss_head, fill_head, out_head;
  bridge_pkg::resolved_t out_res;
  logic [3:0] answered;
  logic [3:0] issued_q = '0;  // slots that wait for an outcome
  assign fill = fill_i && issued_q[fill_idx_i];

  hb_slots #(
      .IdxW(2),
      .StampW(2)
  ) dut (
      .clk_i,
      .rst_ni(rst_n),
      .alloc_valid_i(alloc_i),
      .alloc_ready_o(alloc_ready),
      .alloc_head_i(head_i),
      .alloc_stamp_i(stamp_i),
      .alloc_refuse_i(refuse_i),
      .alloc_status_i(status_i),
      .iss_valid_o(iss_valid),
      .iss_ready_i,
      .iss_idx_o(iss_idx),
      .iss_head_o(iss_head),
      .fill_idx_i,
      .fill_head_o(fill_head),
      .fill_valid_i(fill),
      .fill_res_i(res_i),
      .out_valid_o(out_valid),
      .out_ready_i,
      .out_idx_o(out_idx),
      .out_head_o(out_head),
      .out_stamp_o(out_stamp),
      .out_res_o(out_res),
      .answered_o(answered),
      .busy_o(busy)
  );

  logic alloc, iss, out;
  assign alloc = alloc_i && alloc_ready;
  assign iss = iss_valid && iss_ready_i;
  assign out = out_valid && out_ready_i;

  logic [2:0] level_q = '0;
  logic [1:0] next_q = '0;  // slot of the next request
  // The followed request: held, so many before it, its outcome is known.
  logic inside_q = 1'b0, refused_q = 1'b0, sent_q = 1'b0, known_q = 1'b0, due_q = 1'b0;
  logic [1:0] idx_q, stamp_q;
  logic [2:0] ahead_q;
  tlp_pkg::tlp_head_t head_q;
  bridge_pkg::resolved_t res_q;
  logic mine_out, mine_iss;
  assign mine_out = inside_q && out && ahead_q == '0;
  assign mine_iss = inside_q && iss && iss_idx == idx_q;

  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      level_q <= level_q + 3'(alloc) - 3'(out);
      next_q <= next_q + 2'(alloc);
      if (iss) issued_q[iss_idx] <= 1'b1;
      if (fill) issued_q[fill_idx_i] <= 1'b0;
      due_q <= inside_q && ahead_q == '0 && known_q && !out;
      if (alloc && track_i && !inside_q) begin
        inside_q <= 1'b1;
        refused_q <= refuse_i;
        known_q <= refuse_i;
        sent_q <= 1'b0;
        ahead_q <= level_q - 3'(out);
        idx_q <= next_q;
        head_q <= head_i;
        stamp_q <= stamp_i;
        res_q <= '{dest: bridge_pkg::DestNone, cpl_status: status_i, attr: '0, addr: '0};
      end else if (inside_q) begin
        if (out) ahead_q <= ahead_q - 3'd1;
        if (mine_out) inside_q <= 1'b0;
        if (mine_iss) sent_q <= 1'b1;
        if (fill && fill_idx_i == idx_q) begin
          known_q <= 1'b1;
          res_q <= res_i;
        end
      end
    end
  end

  logic [2:0] before_issue;
  assign before_issue = dut.iss_q - dut.out_q;

  always_comb begin
    if (rst_n) begin
      // Invariants of the induction.
      if (Invariants) begin
        assert (dut.alloc_q - dut.out_q == level_q && dut.alloc_q[1:0] == next_q);
        assert (before_issue <= level_q);
        for (int unsigned i = 0; i < 4; i++) begin
          assert ({1'b0, 2'(i) - dut.out_q[1:0]} < before_issue ? issued_q[i] != dut.done_q[i] :
                                                                  !issued_q[i]);
          assert ({1'b0, 2'(i) - dut.out_q[1:0]} < level_q || !dut.done_q[i]);
        end
        if (inside_q) begin
          assert (idx_q == dut.out_q[1:0] + ahead_q[1:0]);
          assert (dut.head_q[idx_q] == head_q && dut.stamp_q[idx_q] == stamp_q);
          assert (dut.done_q[idx_q] == known_q && (!known_q || dut.res_q[idx_q] == res_q));
          assert (refused_q ? known_q : sent_q == (ahead_q < before_issue));
        end
      end

      assert (level_q <= 3'd4 && (!inside_q || ahead_q < level_q));
      assert (alloc_ready == (level_q != 3'd4));
      assert (busy == (level_q != '0));
      // Issued once, never a refused one, with its header; no outcome of others without that.
      assert (!inside_q || (refused_q ? !sent_q : sent_q || !known_q));
      assert (!mine_iss || (!sent_q && !refused_q && iss_head == head_q));
      assert (!(inside_q && fill_idx_i == idx_q) || fill_head == head_q);
      // Released in its place, after its outcome, with what belongs to it.
      assert (!mine_out || (known_q && out_idx == idx_q && out_head == head_q &&
                            out_stamp == stamp_q && out_res == res_q));
      assert (!out || level_q != '0);
      assert (!inside_q || answered[idx_q] == known_q);
      // Progress: the oldest request with an outcome is offered in the next cycle.
      assert (!due_q || out_valid);

      cover (mine_out && refused_q && level_q == 3'd4);
      cover (inside_q && known_q && !refused_q && ahead_q == 3'd2 && answered == 4'b1000);
    end
  end
endmodule
