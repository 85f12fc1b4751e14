// SPDX-License-Identifier: MIT OR Apache-2.0

/// Device directory cache: fully associative, tagged by device_id. Only valid and well
/// configured device contexts are filled, so a hit needs no further check of the context.
module iommu_ddtc
  import iommu_int_pkg::*;
#(
    /// Number of device contexts held.
    parameter int unsigned Entries = 16
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Device looked up; the answer comes in the same cycle.
    input logic [23:0] lookup_device_id_i,
    /// The lookup is used: counts for replacement.
    input logic lookup_used_i,
    /// A context of the device is held.
    output logic hit_o,
    /// That context.
    output dc_t dc_o,

    /// Write a context. Never together with an invalidation.
    input logic fill_valid_i,
    /// Its device.
    input logic [23:0] fill_device_id_i,
    /// The context.
    input dc_t fill_dc_i,

    /// Invalidate, one cycle.
    input logic inval_valid_i,
    /// What to invalidate.
    input dir_inval_t inval_i
);
  logic [Entries-1:0] valid_q, match, fill_match, inval_match, victim;
  logic [23:0] tag_q [Entries];
  dc_t dc_q [Entries];

  for (genvar i = 0; i < Entries; i++) begin : gen_match
    assign match[i] = valid_q[i] && tag_q[i] == lookup_device_id_i;
    assign fill_match[i] = valid_q[i] && tag_q[i] == fill_device_id_i;
    assign inval_match[i] = !inval_i.pdt && (!inval_i.dv || tag_q[i] == inval_i.device_id);
  end

  logic [19:0] unused_process_id;
  assign unused_process_id = inval_i.process_id;  // only INVAL_PDT has one

  assign hit_o = |match;
  always_comb begin
    dc_o = '0;
    for (int unsigned i = 0; i < Entries; i++) begin
      if (match[i]) dc_o = dc_o | dc_q[i];
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
        tag_q[i] <= fill_device_id_i;
        dc_q[i] <= fill_dc_i;
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) $onehot0(match));
  assert property (@(posedge clk_i) disable iff (!rst_ni) !fill_valid_i || !inval_valid_i);
endmodule
