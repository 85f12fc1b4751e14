// SPDX-License-Identifier: MIT OR Apache-2.0

/// Translations of one stage: fully associative, any page size in any entry. The first stage is
/// tagged by address space (host or GSCID, and PSCID), the second by GSCID. Two entries may match
/// one address after software has changed a page size without an invalidation; the first then
/// answers alone, so that an answer is never a mix of two entries (IOMMU §3.1.1, second note).
module iommu_iotlb
  import iommu_int_pkg::*;
#(
    /// Number of translations held.
    parameter int unsigned Entries = 64,
    /// 1: second stage.
    parameter bit Stage2 = 1'b0,
    /// Address bits above the page offset.
    parameter int unsigned PageW = 45,
    /// There are guests; without, their tag is not kept.
    parameter bit Guests = 1'b0
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Tag looked up and filled: the address space has a second stage.
    input logic guest_i,
    /// Its GSCID.
    input logic [15:0] gscid_i,
    /// Its PSCID.
    input logic [19:0] pscid_i,
    /// Address bits looked up and filled; the answer comes in the same cycle.
    input logic [PageW-1:0] page_i,
    /// The lookup is used: counts for replacement.
    input logic used_i,
    /// A translation is held.
    output logic hit_o,
    /// That translation.
    output leaf_t leaf_o,

    /// Write a translation; those held for the same address are removed. Never together
    /// with an invalidation.
    input logic fill_valid_i,
    /// The translation.
    input leaf_t fill_leaf_i,

    /// Invalidate, one cycle.
    input logic inval_valid_i,
    /// What to invalidate.
    input iotlb_inval_t inval_i
);
  logic [Entries-1:0] valid_q, match, chosen, fill_match, inval_match, victim;
  logic guest_q [Entries];
  logic [15:0] gscid_q [Entries];
  logic [19:0] pscid_q [Entries];
  logic [PageW-1:0] page_q [Entries];
  leaf_t leaf_q [Entries];

  logic guest;
  logic [15:0] gscid;
  logic [19:0] pscid;
  assign guest = Guests && guest_i;
  assign gscid = guest ? gscid_i : '0;
  assign pscid = Stage2 ? '0 : pscid_i;

  // Address bits that differ inside the range of an invalidation (extension S: the zero after the
  // low ones is the last of them).
  logic [51:0] range;
  assign range = inval_i.s ? inval_i.addr ^ (inval_i.addr + 52'd1) : '0;

  for (genvar i = 0; i < Entries; i++) begin : gen_match
    logic [51:0] inside_page;
    logic [PageW-1:0] keep;
    logic space_match, addr_match, inval_addr_match, inval_guest_match;
    logic unused_inside;
    assign inside_page = page_mask(leaf_q[i].size);
    assign unused_inside = ^inside_page;
    assign keep = ~inside_page[PageW-1:0];
    assign space_match = guest_q[i] == guest && gscid_q[i] == gscid && pscid_q[i] == pscid;
    assign addr_match = ((page_q[i] ^ page_i) & keep) == '0;
    assign match[i] = valid_q[i] && space_match && addr_match;
    assign fill_match[i] = space_match && addr_match;

    assign inval_addr_match =
        ((page_q[i] ^ inval_i.addr[PageW+11:12]) & keep & ~range[PageW-1:0]) == '0;
    assign inval_guest_match = guest_q[i] && gscid_q[i] == inval_i.gscid;
    if (Stage2) begin : gen_stage2
      // IOTINVAL.GVMA (IOMMU §3.1.1): without GV all guests, and AV is ignored.
      assign inval_match[i] = inval_i.gvma &&
          (!inval_i.gv || (inval_guest_match && (!inval_i.av || inval_addr_match)));
    end else begin : gen_stage1
      // IOTINVAL.VMA: with PSCV, entries of global mappings stay.
      assign inval_match[i] = !inval_i.gvma && (inval_i.gv ? inval_guest_match : !guest_q[i]) &&
          (!inval_i.av || inval_addr_match) &&
          (!inval_i.pscv || (pscid_q[i] == inval_i.pscid && !leaf_q[i].global_map));
    end
  end

  // NL: no non-leaf entries are held; address bits above the scheme's.
  logic unused;
  assign unused = ^{inval_i, range, gscid_i, pscid_i, guest_i};

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
      .use_i   (used_i ? chosen : '0),
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
        guest_q[i] <= guest;
        gscid_q[i] <= gscid;
        pscid_q[i] <= pscid;
        page_q[i] <= page_i;
        leaf_q[i] <= fill_leaf_i;
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !fill_valid_i || !inval_valid_i);
endmodule
