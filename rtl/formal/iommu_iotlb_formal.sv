// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `iommu_iotlb`, for one address in one address space and one translation, all chosen
/// freely: it is only answered when it has been filled for that address there and nothing that
/// covers it has been invalidated since (IOMMU §3.1.1).
module iommu_iotlb_formal
  import iommu_int_pkg::*;
#(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1,
    /// 1: second stage.
    parameter bit Stage2 = 1'b0,
    localparam int unsigned PageW = 45
) (
    /// Clock.
    input logic clk_i,
    /// The followed address space, address and translation, read in reset.
    input logic f_guest_i,
    /// Followed.
    input logic [15:0] f_gscid_i,
    /// Followed.
    input logic [19:0] f_pscid_i,
    /// Followed.
    input logic [PageW-1:0] f_page_i,
    /// Followed.
    input leaf_t f_leaf_i,
    /// Lookups and fills.
    input logic guest_i,
    /// Lookups and fills.
    input logic [15:0] gscid_i,
    /// Lookups and fills.
    input logic [19:0] pscid_i,
    /// Lookups and fills.
    input logic [PageW-1:0] page_i,
    /// Lookup used.
    input logic used_i,
    /// Fill.
    input logic fill_i,
    /// Fill.
    input leaf_t leaf_i,
    /// Invalidation.
    input logic inval_valid_i,
    /// Invalidation.
    input iotlb_inval_t inval_i
);
  localparam int unsigned Entries = 3;

  logic rst_n = 1'b0;
  logic guest_q;
  logic [15:0] gscid_q;
  logic [19:0] pscid_q;
  logic [PageW-1:0] page_q;
  leaf_t leaf_q;
  always_ff @(posedge clk_i) begin
    rst_n <= 1'b1;
    if (!rst_n) begin
      guest_q <= f_guest_i;
      gscid_q <= f_gscid_i;
      pscid_q <= f_pscid_i;
      page_q <= f_page_i;
      leaf_q <= f_leaf_i;
    end
  end

  logic hit, fill;
  leaf_t leaf;
  assign fill = fill_i && !inval_valid_i;

  iommu_iotlb #(
      .Entries(Entries),
      .Stage2(Stage2),
      .PageW(PageW),
      .Guests(1'b1)
  ) dut (
      .clk_i,
      .rst_ni(rst_n),
      .guest_i,
      .gscid_i,
      .pscid_i,
      .page_i,
      .used_i,
      .hit_o(hit),
      .leaf_o(leaf),
      .fill_valid_i(fill),
      .fill_leaf_i(leaf_i),
      .inval_valid_i,
      .inval_i
  );

  // Whose translation it is: guests by GSCID, the host has none; the second stage knows no PSCID.
  function automatic logic same_space(logic guest, logic [15:0] gscid, logic [19:0] pscid);
    return guest == guest_q && (!guest || gscid == gscid_q) && (Stage2 || pscid == pscid_q);
  endfunction
  // Address bits that name the page, where only those of `size` count.
  function automatic logic [51:0] page_bits(page_size_e size);
    unique case (size)
      Pg4K:    return 52'h0;
      Pg64K:   return 52'hf;
      Pg2M:    return 52'h1ff;
      Pg4M:    return 52'h3ff;
      Pg1G:    return 52'h3_ffff;
      Pg512G:  return 52'h7ff_ffff;
      Pg256T:  return 52'hf_ffff_ffff;
      default: return 52'h0;
    endcase
  endfunction
  logic [51:0] in_leaf, in_fill, in_range;
  assign in_leaf = page_bits(leaf_q.size);
  assign in_fill = page_bits(leaf_i.size);
  // The range of an invalidation with S: up to the lowest 0 of the address.
  always_comb begin
    in_range = '0;
    if (inval_i.s) begin
      in_range = '1;
      for (int i = 51; i >= 0; i--) if (!inval_i.addr[12+i]) in_range = (52'd2 << i) - 52'd1;
    end
  end

  logic filled, in_address, in_guest, in_process, invalidated, here;
  assign filled = fill && same_space(guest_i, gscid_i, pscid_i) && leaf_i == leaf_q &&
                  ((page_i ^ page_q) & ~in_fill[PageW-1:0]) == '0;
  assign in_address = !inval_i.av || ((inval_i.addr[12+:PageW] ^ page_q) & ~in_leaf[PageW-1:0] &
                                      ~in_range[PageW-1:0]) == '0;
  assign in_guest = guest_q && inval_i.gscid == gscid_q;
  assign in_process = !inval_i.pscv || (inval_i.pscid == pscid_q && !leaf_q.global_map);
  if (Stage2) begin : gen_gvma
    assign invalidated = inval_valid_i && inval_i.gvma &&
                         (!inval_i.gv || (in_guest && in_address));
  end else begin : gen_vma
    assign invalidated = inval_valid_i && !inval_i.gvma && (inval_i.gv ? in_guest : !guest_q) &&
                         in_address && in_process;
  end
  assign here = same_space(guest_i, gscid_i, pscid_i) && page_i == page_q;

  logic alive_q = 1'b0, just_filled_q = 1'b0;
  logic f_guest_q;
  logic [15:0] f_gscid_q;
  logic [19:0] f_pscid_q;
  logic [PageW-1:0] f_page_q;
  leaf_t f_leaf_q;
  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      alive_q <= filled || (alive_q && !invalidated);
      just_filled_q <= fill;
      f_guest_q <= guest_i;
      f_gscid_q <= gscid_i;
      f_pscid_q <= pscid_i;
      f_page_q <= page_i;
      f_leaf_q <= leaf_i;
    end
  end

  always_comb begin
    assume (!f_guest_i ? f_gscid_i == '0 : 1'b1);
    assume (f_leaf_i.size != page_size_e'(3'd7) && leaf_i.size != page_size_e'(3'd7));
    if (rst_n) begin
      // Invariants of the induction: an entry that holds the followed translation is alive.
      if (Invariants) begin
        assert (guest_q || gscid_q == '0);
        assert (leaf_q.size != page_size_e'(3'd7));
        for (int unsigned i = 0; i < Entries; i++) begin
          assert (!(dut.valid_q[i] && dut.guest_q[i] == guest_q && dut.gscid_q[i] == gscid_q &&
                    (Stage2 || dut.pscid_q[i] == pscid_q) && dut.leaf_q[i] == leaf_q &&
                    ((dut.page_q[i] ^ page_q) & ~in_leaf[PageW-1:0]) == '0) || alive_q);
        end
      end

      // No answer that was not filled, or that has been invalidated.
      assert (!(hit && here && leaf == leaf_q) || alive_q);
      // What was filled is found, and nothing else in its place.
      assert (!(just_filled_q && guest_i == f_guest_q && gscid_i == f_gscid_q &&
                pscid_i == f_pscid_q && page_i == f_page_q) || (hit && leaf == f_leaf_q));

      cover (hit && here && leaf == leaf_q && leaf_q.size == Pg2M && guest_q && used_i);
      cover (alive_q && invalidated && inval_i.av && inval_i.s && in_range == 52'h7);
      cover (alive_q && inval_valid_i && !invalidated && inval_i.gv);
      cover (alive_q && here && !hit);
    end
  end
endmodule
