// SPDX-License-Identifier: MIT OR Apache-2.0

/// Non-leaf entries of one stage: where the table of a level is for a part of the addresses. Fully
/// associative, tagged as the IOTLB of the stage. A lookup gives the table nearest to the leaf.
module iommu_walk_cache
  import iommu_int_pkg::*;
#(
    /// Number of entries held.
    parameter int unsigned Entries = 16,
    /// 1: second stage.
    parameter bit Stage2 = 1'b0
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
    /// Its scheme is Sv32 or Sv32x4.
    input logic sv32_i,
    /// Address bits 58:12 looked up and filled.
    input logic [46:0] page_i,
    /// The lookup is used: counts for replacement.
    input logic used_i,
    /// A table is held.
    output logic hit_o,
    /// Its level, 0 that of the smallest pages.
    output logic [1:0] level_o,
    /// Its page.
    output logic [43:0] ppn_o,
    /// Entries above it have G.
    output logic global_o,

    /// Write an entry. Never together with an invalidation.
    input logic fill_valid_i,
    /// Level of its table.
    input logic [1:0] fill_level_i,
    /// Page of its table.
    input logic [43:0] fill_ppn_i,
    /// It or entries above it have G.
    input logic fill_global_i,

    /// Invalidate, one cycle.
    input logic inval_valid_i,
    /// What to invalidate. Without NL an address names leaves only (extension NL).
    input iotlb_inval_t inval_i
);
  typedef struct packed {
    logic        guest;
    logic [15:0] gscid;
    logic [19:0] pscid;
    logic        sv32;
    logic [46:0] page;
    logic [1:0]  level;
    logic [43:0] ppn;
    logic        global_map;
  } entry_t;

  logic [Entries-1:0] valid_q, match, chosen, fill_match, inval_match, victim;
  entry_t entry_q [Entries];

  // Address bits below those that lead to a table of this level.
  function automatic logic [51:0] below(logic [1:0] level, logic sv32);
    unique case (level)
      2'd0:    below = page_mask(sv32 ? Pg4M : Pg2M);
      2'd1:    below = page_mask(Pg1G);
      2'd2:    below = page_mask(Pg512G);
      default: below = page_mask(Pg256T);
    endcase
  endfunction

  logic [51:0] range;
  assign range = inval_i.s ? inval_i.addr ^ (inval_i.addr + 52'd1) : '0;

  for (genvar i = 0; i < Entries; i++) begin : gen_match
    logic [51:0] rest;
    logic space_match, inval_addr_match, inval_guest_match;
    assign rest = below(entry_q[i].level, entry_q[i].sv32);
    assign space_match = entry_q[i].guest == guest_i && entry_q[i].gscid == gscid_i &&
                         entry_q[i].pscid == pscid_i && entry_q[i].sv32 == sv32_i;
    assign match[i] = valid_q[i] && space_match &&
                      ((entry_q[i].page ^ page_i) & ~rest[46:0]) == '0;
    assign fill_match[i] = match[i] && entry_q[i].level == fill_level_i;

    assign inval_addr_match = inval_i.nl &&
        ((entry_q[i].page ^ inval_i.addr[58:12]) & ~rest[46:0] & ~range[46:0]) == '0;
    assign inval_guest_match = entry_q[i].guest && entry_q[i].gscid == inval_i.gscid;
    if (Stage2) begin : gen_stage2
      assign inval_match[i] = inval_i.gvma &&
          (!inval_i.gv || (inval_guest_match && (!inval_i.av || inval_addr_match)));
    end else begin : gen_stage1
      // An address of the first stage is held with its sign bits above those of the scheme.
      assign inval_match[i] = !inval_i.gvma &&
          (inval_i.gv ? inval_guest_match : !entry_q[i].guest) &&
          (!inval_i.av || inval_addr_match) &&
          (!inval_i.pscv || entry_q[i].pscid == inval_i.pscid);
    end
    logic unused_rest;
    assign unused_rest = ^rest;
  end
  logic unused;
  assign unused = ^{inval_i, range};

  // The lowest level; two entries of one level never match one address.
  always_comb begin
    hit_o = |match;
    level_o = 2'd3;
    chosen = '0;
    ppn_o = '0;
    global_o = 1'b0;
    for (int unsigned i = 0; i < Entries; i++) begin
      if (match[i] && entry_q[i].level <= level_o) begin
        level_o = entry_q[i].level;
        chosen = '0;
        chosen[i] = 1'b1;
        ppn_o = entry_q[i].ppn;
        global_o = entry_q[i].global_map;
      end
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
        entry_q[i] <= '{
            guest: guest_i,
            gscid: gscid_i,
            pscid: pscid_i,
            sv32: sv32_i,
            page: page_i,
            level: fill_level_i,
            ppn: fill_ppn_i,
            global_map: fill_global_i
        };
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !fill_valid_i || !inval_valid_i);
endmodule
