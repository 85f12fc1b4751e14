// SPDX-License-Identifier: MIT OR Apache-2.0

/// Arbiter of the memory port: the IOMMU first, so that no device can hold up a table walk; then
/// the TLPs of all root ports in turn. A choice once shown at the port stays until it is taken, a
/// write until its last beat.
///
/// Handshake kind: ready/valid.
module hb_mem_arb #(
  /// Streams of TLPs.
  parameter int unsigned NumIn = 4
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// The IOMMU has a request, of one beat.
  input logic iommu_valid_i,
  /// It is taken.
  output logic iommu_ready_o,
  /// The request.
  input mem_pkg::mem_req_t iommu_req_i,
  /// Its data.
  input logic [mem_pkg::MemDataW-1:0] iommu_wdata_i,

  /// A TLP stream has a beat.
  input logic [NumIn-1:0] valid_i,
  /// It is taken.
  output logic [NumIn-1:0] take_o,
  /// Its request.
  input mem_pkg::mem_req_t [NumIn-1:0] req_i,
  /// Its data.
  input logic [NumIn-1:0][mem_pkg::MemDataW-1:0] wdata_i,
  /// First beat.
  input logic [NumIn-1:0] sop_i,
  /// Last beat.
  input logic [NumIn-1:0] eop_i,

  /// Memory port.
  output logic mem_req_valid_o,
  /// Memory port.
  input logic mem_req_ready_i,
  /// Memory port.
  output mem_pkg::mem_req_t mem_req_o,
  /// Memory port.
  output logic mem_req_sop_o,
  /// Memory port.
  output logic mem_req_eop_o,
  /// Memory port.
  output logic [mem_pkg::MemDataW-1:0] mem_req_wdata_o
);

  localparam int unsigned SelW = (NumIn > 1) ? $clog2(NumIn) : 1;

  logic locked_q;         // keep the choice
  logic iommu_q;          // the choice kept: the IOMMU
  logic [SelW-1:0] last_q;  // or this stream; the last one served otherwise
  logic iommu_sel;
  logic [SelW-1:0] sel;
  logic keep;

  always_comb begin
    sel = last_q;
    iommu_sel = iommu_q;
    if (!locked_q) begin
      iommu_sel = iommu_valid_i;
      for (int unsigned i = NumIn; i > 0; i--) begin
        if (valid_i[i-1]) sel = SelW'(i - 1);
      end
      for (int unsigned i = NumIn; i > 0; i--) begin
        if (valid_i[i-1] && (i - 1) > 32'(last_q)) sel = SelW'(i - 1);
      end
    end
  end

  assign mem_req_valid_o = iommu_sel ? iommu_valid_i : valid_i[sel];
  assign mem_req_o = iommu_sel ? iommu_req_i : req_i[sel];
  assign mem_req_wdata_o = iommu_sel ? iommu_wdata_i : wdata_i[sel];
  assign mem_req_sop_o = iommu_sel || sop_i[sel];
  assign mem_req_eop_o = iommu_sel || eop_i[sel];
  assign iommu_ready_o = iommu_sel && mem_req_ready_i;
  // Between the beats of a write the choice is kept even when there is no beat.
  assign keep = (mem_req_valid_o && !(mem_req_ready_i && mem_req_eop_o))
                || (locked_q && !mem_req_valid_o);

  always_comb begin
    take_o = '0;
    take_o[sel] = valid_i[sel] && !iommu_sel && mem_req_ready_i;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      locked_q <= 1'b0;
      iommu_q <= 1'b0;
      last_q <= '0;
    end else begin
      locked_q <= keep;
      iommu_q <= iommu_sel;
      if (mem_req_valid_o && !iommu_sel) last_q <= sel;
    end
  end

  // What waits at the port stays as it is.
  mem_pkg::mem_req_t prev_q;
  logic waited_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      prev_q <= '0;
      waited_q <= 1'b0;
    end else begin
      prev_q <= mem_req_o;
      waited_q <= mem_req_valid_o && !mem_req_ready_i;
    end
  end
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !waited_q || (mem_req_valid_o && mem_req_o == prev_q));

endmodule
