// SPDX-License-Identifier: MIT OR Apache-2.0

/// Replacement choice of a fully associative cache: an empty entry if there is one, else one that
/// has not been used since all others were (one bit an entry).
module iommu_plru #(
    /// Number of entries, at least 2.
    parameter int unsigned Entries = 16
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,
    /// Entries in use.
    input logic [Entries-1:0] valid_i,
    /// Entry used in this cycle, one-hot or 0.
    input logic [Entries-1:0] use_i,
    /// Entry filled in this cycle, one-hot or 0.
    input logic [Entries-1:0] fill_i,
    /// Entry to fill next, one-hot.
    output logic [Entries-1:0] victim_o
);
  logic [Entries-1:0] recent_q, recent_d, candidates;

  always_comb begin
    recent_d = recent_q | use_i | fill_i;
    if (&recent_d) recent_d = use_i | fill_i;
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) recent_q <= '0;
    else recent_q <= recent_d;
  end

  assign candidates = &valid_i ? ~recent_q : ~valid_i;
  assign victim_o = candidates & (~candidates + 1'b1);

  if (Entries < 2) begin : gen_too_few
    $error("a cache has at least 2 entries");
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) $onehot(victim_o));
endmodule
