// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `ep_id_pool`: an identifier has one holder at most, and a free one is shown.
module ep_id_pool_formal #(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1
) (
    /// Clock.
    input logic clk_i,
    /// An identifier is taken if one is shown.
    input logic take_i,
    /// One is given back if it is held.
    input logic free_i,
    /// Which.
    input logic [2:0] free_id_i
);
  localparam int unsigned Count = 5;

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic id_valid, take, free;
  logic [2:0] id;
  logic [Count-1:0] busy;
  logic [3:0] used;
  // Who holds what, as its users see it.
  logic [Count-1:0] held_q = '0;
  assign take = take_i && id_valid;
  assign free = free_i && 32'(free_id_i) < Count && held_q[free_id_i];

  ep_id_pool #(
      .Count(Count)
  ) dut (
      .clk_i,
      .rst_ni(rst_n),
      .id_valid_o(id_valid),
      .id_o(id),
      .take_i(take),
      .free_i(free),
      .free_id_i,
      .busy_o(busy),
      .used_o(used)
  );

  logic starved_q = 1'b0, shown_q = 1'b0;
  logic [2:0] id_q;
  logic [3:0] holders;
  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      if (free) held_q[free_id_i] <= 1'b0;
      if (take) held_q[id] <= 1'b1;
      starved_q <= !id_valid && held_q != '1;
      shown_q <= id_valid && !take;
      id_q <= id;
    end
  end
  always_comb begin
    holders = '0;
    for (int unsigned i = 0; i < Count; i++) holders += 4'(held_q[i]);
  end

  always_comb begin
    if (rst_n) begin
      // What is shown exists and has no holder; it stays until taken.
      assert (!id_valid || (32'(id) < Count && !held_q[id]));
      assert (!shown_q || (id_valid && id == id_q));
      // The pool's account is that of its users.
      assert (busy == held_q && used == holders);
      // Progress: a free identifier is shown in the next cycle.
      assert (!starved_q || id_valid);

      cover (held_q == '1);
      cover (starved_q && id == 3'd3);
    end
  end
endmodule
