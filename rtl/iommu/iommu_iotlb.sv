// SPDX-License-Identifier: MIT OR Apache-2.0

/// IOTLB: fully associative, any page size in any entry, tagged by PSCID. Two entries may match
/// one address after software has changed a page size without an invalidation; the first then
/// answers alone, so that an answer is never a mix of two entries (IOMMU §3.1.1, second note).
module iommu_iotlb
  import iommu_int_pkg::*;
#(
    /// Number of translations held.
    parameter int unsigned Entries = 64
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Address space looked up; the answer comes in the same cycle.
    input logic [19:0] lookup_pscid_i,
    /// IOVA bits 56:12.
    input logic [44:0] lookup_vpn_i,
    /// The lookup is used: counts for replacement.
    input logic lookup_used_i,
    /// A translation is held.
    output logic hit_o,
    /// That translation.
    output leaf_t leaf_o,

    /// Write a translation; those held for the same address are removed. Never together
    /// with an invalidation.
    input logic fill_valid_i,
    /// Its address space.
    input logic [19:0] fill_pscid_i,
    /// IOVA bits 56:12 of any address in its page.
    input logic [44:0] fill_vpn_i,
    /// The translation.
    input leaf_t fill_leaf_i,

    /// Invalidate, one cycle.
    input logic inval_valid_i,
    /// What to invalidate.
    input iotlb_inval_t inval_i
);
  logic [Entries-1:0] valid_q, match, chosen, fill_match, inval_match, victim;
  logic [19:0] pscid_q [Entries];
  logic [44:0] vpn_q [Entries];
  leaf_t leaf_q [Entries];

  // Fill and invalidation compare with the same address port.
  logic [44:0] other_vpn;
  assign other_vpn = inval_valid_i ? inval_i.addr[56:12] : fill_vpn_i;

  for (genvar i = 0; i < Entries; i++) begin : gen_match
    logic [44:0] keep;
    logic other_vpn_hit;
    assign keep = ~page_mask(leaf_q[i].size);
    assign match[i] = valid_q[i] && pscid_q[i] == lookup_pscid_i &&
                      ((vpn_q[i] ^ lookup_vpn_i) & keep) == '0;
    assign other_vpn_hit = ((vpn_q[i] ^ other_vpn) & keep) == '0;
    assign fill_match[i] = pscid_q[i] == fill_pscid_i && other_vpn_hit;
    // PSCID given: entries of global mappings stay (IOMMU §3.1.1, table of IOTINVAL.VMA).
    assign inval_match[i] = (!inval_i.av || other_vpn_hit) &&
        (!inval_i.pscv || (pscid_q[i] == inval_i.pscid && !leaf_q[i].global_map));
  end

  logic unused;  // the caller passes on what concerns this cache
  assign unused = ^{inval_i.gvma, inval_i.gv, inval_i.nl, inval_i.s, inval_i.gscid,
                    inval_i.addr[63:57]};

  assign hit_o = |match;
  assign chosen = match & (~match + 1'b1);
  always_comb begin
    leaf_o = '0;
    for (int unsigned i = 0; i < Entries; i++) begin
      if (chosen[i]) leaf_o = leaf_o | leaf_q[i];
    end
  end

  iommu_plru #(
      .Entries(Entries)
  ) u_plru (
      .clk_i,
      .rst_ni,
      .valid_i (valid_q),
      .use_i   (lookup_used_i ? chosen : '0),
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
        pscid_q[i] <= fill_pscid_i;
        vpn_q[i] <= fill_vpn_i;
        leaf_q[i] <= fill_leaf_i;
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !fill_valid_i || !inval_valid_i);
endmodule
