// SPDX-License-Identifier: MIT OR Apache-2.0

/// Pool of identifiers 0 to `Count` - 1: shows a free one ahead of need.
///
/// Handshake kind: `id_o` is stable while `id_valid_o`, taken with `take_i`; a freed identifier is
/// shown again from the next cycle but one.
module ep_id_pool #(
  /// Identifiers.
  parameter int unsigned Count = 64,
  /// Their width.
  parameter int unsigned IdW = $clog2(Count)
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,
  /// An identifier is free.
  output logic id_valid_o,
  /// The identifier.
  output logic [IdW-1:0] id_o,
  /// Take it; only with `id_valid_o`.
  input logic take_i,
  /// Give one back.
  input logic free_i,
  /// Which.
  input logic [IdW-1:0] free_id_i,
  /// Identifiers in use.
  output logic [Count-1:0] busy_o,
  /// Their number.
  output logic [IdW:0] used_o
);

  logic [Count-1:0] busy_q;
  logic [Count-1:0] busy_d;
  logic [Count-1:0] shown;
  logic [Count-1:0] avail;
  logic [IdW-1:0] pick;
  logic [IdW:0] used_q;

  assign shown = id_valid_o ? Count'(1) << id_o : '0;
  assign avail = ~(busy_q | shown);

  always_comb begin
    pick = '0;
    for (int unsigned i = Count; i > 0; i--) begin
      if (avail[i-1]) pick = IdW'(i - 1);
    end
  end

  always_comb begin
    busy_d = busy_q;
    if (free_i) busy_d[free_id_i] = 1'b0;
    if (take_i) busy_d[id_o] = 1'b1;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q <= '0;
      used_q <= '0;
      id_valid_o <= 1'b0;
      id_o <= '0;
    end else begin
      busy_q <= busy_d;
      used_q <= used_q + (IdW + 1)'(take_i) - (IdW + 1)'(free_i);
      if (!id_valid_o || take_i) begin
        id_valid_o <= |avail;
        id_o <= pick;
      end
    end
  end

  assign busy_o = busy_q;
  assign used_o = used_q;

  assert property (@(posedge clk_i) disable iff (!rst_ni) !take_i || id_valid_o);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !id_valid_o || !busy_q[id_o]);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !free_i || busy_q[free_id_i]);

endmodule
