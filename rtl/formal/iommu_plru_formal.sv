// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `iommu_plru`: an empty entry goes first, and never the one used last.
module iommu_plru_formal #(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1
) (
    /// Clock.
    input logic clk_i,
    /// An entry is used.
    input logic use_i,
    /// Which.
    input logic [1:0] entry_i,
    /// The victim is filled.
    input logic fill_i,
    /// Entries that are invalidated.
    input logic [3:0] inval_i
);
  localparam int unsigned Entries = 4;

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic [Entries-1:0] valid_q = '0;
  logic [Entries-1:0] victim, used, filled;
  logic [Entries-1:0] last_q = '0;
  assign used = use_i ? (Entries'(1) << entry_i) & valid_q : '0;
  assign filled = fill_i ? victim : '0;

  iommu_plru #(
      .Entries(Entries)
  ) dut (
      .clk_i,
      .rst_ni(rst_n),
      .valid_i(valid_q),
      .use_i(used),
      .fill_i(filled),
      .victim_o(victim)
  );

  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      valid_q <= (valid_q & ~inval_i) | filled;
      if (|used || |filled) last_q <= used | filled;
    end
  end

  always_comb begin
    if (rst_n) begin
      // Invariants of the induction.
      if (Invariants) begin
        assert (!(&dut.recent_q) && (dut.recent_q & last_q) == last_q);
      end

      assert (victim != '0 && (victim & (victim - 4'd1)) == '0);
      assert (&valid_q || (victim & valid_q) == '0);
      assert (!(&valid_q) || (victim & last_q) == '0);

      cover (&valid_q && victim == 4'b1000);
      cover (&valid_q && last_q == 4'b1000 && victim == 4'b0010);
    end
  end
endmodule
