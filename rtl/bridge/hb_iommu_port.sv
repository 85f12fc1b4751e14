// SPDX-License-Identifier: MIT OR Apache-2.0

/// The IOMMU's way to memory: checks the PMA, hands requests to the memory port, and answers:
/// reads with the port's response beats, writes when the port has taken them. An access to vacant
/// space or to the PCIe aperture fails without leaving.
///
/// Handshake kinds: ready/valid for requests, valid only for responses; both response channels are
/// always accepted.
module hb_iommu_port (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,
  /// PMA table.
  input mem_pkg::pma_region_t [7:0] pma_i,

  /// From the IOMMU.
  input logic req_valid_i,
  /// Taken.
  output logic req_ready_o,
  /// From the IOMMU.
  input iommu_pkg::iommu_mem_req_t req_i,
  /// To the IOMMU.
  output logic rsp_valid_o,
  /// To the IOMMU.
  output iommu_pkg::iommu_mem_rsp_t rsp_o,

  /// To the memory port.
  output logic out_valid_o,
  /// Taken.
  input logic out_ready_i,
  /// To the memory port.
  output mem_pkg::mem_req_t out_req_o,
  /// Data of a write.
  output logic [mem_pkg::MemDataW-1:0] out_wdata_o,

  /// Response beat of a read.
  input logic in_valid_i,
  /// Response beat of a read.
  input mem_pkg::mem_rsp_t in_rsp_i,

  /// Something is under way.
  output logic busy_o
);

  import mem_pkg::*;
  import iommu_pkg::*;

  typedef struct packed {
    logic error;
    logic [3:0] tag;
  } ack_t;

  pma_e pma;
  logic legal;
  logic write;
  logic is_io;
  logic local_done;
  logic ack_ready;
  logic ack_valid;
  logic ack_push;
  ack_t ack;
  logic mid_q;  // between the beats of a chunk
  logic [3:0] tag;
  logic [3:0] tag_q;
  logic [15:0] reading_q;

  logic unused;
  // The IOMMU counts its beats; with no second stage and no QoS IDs these are 0.
  assign unused = ^{in_rsp_i.len_dw, req_i.pbmt, req_i.rcid, req_i.mcid};

  assign pma = bridge_pkg::pma_of(pma_i, req_i.addr);
  // The memory port has no atomics: they fail, and an IOMMU whose tables are in this memory is
  // configured without.
  assign legal = (pma == PmaMem || pma == PmaIo) && (req_i.op == MemRead || write);
  assign write = req_i.op == MemWrite;
  assign is_io = pma == PmaIo;

  // Every taken request has room for its acknowledgement.
  assign out_valid_o = req_valid_i && legal && ack_ready;
  assign local_done = req_valid_i && !legal && ack_ready;
  assign req_ready_o = ack_ready && (legal ? out_ready_i : 1'b1);
  assign ack_push = local_done || (out_valid_o && out_ready_i && write);

  assign out_wdata_o = req_i.wdata;
  assign out_req_o = '{
    rsvd: '0,
    src: SrcIommu,
    write: write,
    attr: '{
      mem_type: is_io ? MemIo : MemWb,
      snoop: !is_io,
      strong_order: is_io || write
    },
    req_id: bridge_pkg::IommuId,
    tlp_tag: '0,
    tag: {4'b1000, req_i.tag},
    last_be: (req_i.len_dw > 5'd1) ? 4'hf : 4'h0,
    first_be: 4'hf,
    len_dw: 11'(req_i.len_dw),
    addr: req_i.addr,
    rsvd1: '0
  };

  fifo #(
    .T(ack_t),
    .Depth(4)
  ) u_ack (
    .clk_i,
    .rst_ni,
    .wvalid_i(ack_push),
    .wready_o(ack_ready),
    .wdata_i('{error: local_done, tag: req_i.tag}),
    .rvalid_o(ack_valid),
    .rready_i(!in_valid_i && !mid_q),
    .rdata_o(ack),
    // verilator lint_off PINCONNECTEMPTY
    .depth_o()  // full and empty are enough
    // verilator lint_on PINCONNECTEMPTY
  );

  assign tag = in_rsp_i.sop ? in_rsp_i.tag[3:0] : tag_q;
  assign rsp_valid_o = in_valid_i || (ack_valid && !mid_q);

  always_comb begin
    if (in_valid_i) begin
      rsp_o = '{
        last: in_rsp_i.eop && in_rsp_i.last,
        error: in_rsp_i.error,
        poison: in_rsp_i.poison,
        tag: tag,
        rdata: in_rsp_i.data
      };
    end else begin
      rsp_o = '{last: 1'b1, error: ack.error, poison: 1'b0, tag: ack.tag, rdata: '0};
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      mid_q <= 1'b0;
      tag_q <= '0;
      reading_q <= '0;
    end else begin
      if (in_valid_i) begin
        mid_q <= !in_rsp_i.eop;
        tag_q <= tag;
        if (in_rsp_i.eop && in_rsp_i.last) reading_q[tag] <= 1'b0;
      end
      if (out_valid_o && out_ready_i && !write) reading_q[req_i.tag] <= 1'b1;
    end
  end

  assign busy_o = req_valid_i || ack_valid || reading_q != '0;

  // A tag is used by one read at a time, and only such a read is answered.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(out_valid_o && !write) || !reading_q[req_i.tag]);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !in_valid_i || reading_q[tag]);

endmodule
