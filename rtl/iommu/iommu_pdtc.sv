// SPDX-License-Identifier: MIT OR Apache-2.0

/// Process directory cache: fully associative, tagged by device_id and process_id. Only valid and
/// well configured process contexts are filled.
module iommu_pdtc
  import iommu_int_pkg::*;
#(
    /// Number of process contexts held.
    parameter int unsigned Entries = 16
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Device looked up; the answer comes in the same cycle.
    input logic [23:0] lookup_device_id_i,
    /// Process looked up.
    input logic [19:0] lookup_process_id_i,
    /// The lookup is used: counts for replacement.
    input logic lookup_used_i,
    /// A context of the process is held.
    output logic hit_o,
    /// That context.
    output pc_t pc_o,

    /// Write a context. Never together with an invalidation.
    input logic fill_valid_i,
    /// Its device.
    input logic [23:0] fill_device_id_i,
    /// Its process.
    input logic [19:0] fill_process_id_i,
    /// The context.
    input pc_t fill_pc_i,

    /// Invalidate, one cycle.
    input logic inval_valid_i,
    /// What to invalidate. INVAL_DDT takes the processes of its device along (IOMMU §3.1.3).
    input dir_inval_t inval_i
);
  logic [Entries-1:0] valid_q, match, fill_match, inval_match, victim;
  logic [23:0] did_q [Entries];
  logic [19:0] pid_q [Entries];
  pc_t pc_q [Entries];

  for (genvar i = 0; i < Entries; i++) begin : gen_match
    assign match[i] = valid_q[i] && did_q[i] == lookup_device_id_i &&
                      pid_q[i] == lookup_process_id_i;
    assign fill_match[i] = did_q[i] == fill_device_id_i && pid_q[i] == fill_process_id_i;
    assign inval_match[i] = (!inval_i.dv || did_q[i] == inval_i.device_id) &&
                            (!inval_i.pdt || pid_q[i] == inval_i.process_id);
  end

  assign hit_o = |match;
  always_comb begin
    pc_o = '0;
    for (int unsigned i = 0; i < Entries; i++) begin
      if (match[i]) pc_o = pc_o | pc_q[i];
    end
  end

  iommu_plru #(
      .Entries(Entries)
  ) u_plru (
      .clk_i,
      .rst_ni,
      .valid_i (valid_q),
      .use_i   (lookup_used_i ? match : '0),
      .fill_i  (fill_valid_i ? victim : '0),
      .victim_o(victim)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_q <= '0;
    end else if (inval_valid_i) begin
      valid_q <= valid_q & ~inval_match;
    end else if (fill_valid_i) begin
      valid_q <= (valid_q & ~fill_match) | victim;
    end
  end

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Entries; i++) begin
      if (fill_valid_i && victim[i]) begin
        did_q[i] <= fill_device_id_i;
        pid_q[i] <= fill_process_id_i;
        pc_q[i] <= fill_pc_i;
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) $onehot0(match));
  assert property (@(posedge clk_i) disable iff (!rst_ni) !fill_valid_i || !inval_valid_i);
endmodule
