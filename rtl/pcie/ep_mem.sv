// SPDX-License-Identifier: MIT OR Apache-2.0

/// The endpoint's 1 MiB local memory: one write and one read of a whole beat a cycle, each
/// beginning at any DW.
///
/// One bank holds one DW lane, so a beat that begins at lane s takes banks s to the last from
/// one row and banks 0 to s-1 from the next; the rotation between payload lane 0 and the local
/// lane is all the alignment there is. Addresses wrap at the end of the memory.
///
/// Handshake kind of the read ports: ready/valid, the data one cycle after the handshake.
module ep_mem #(
  /// Beat width in bits.
  parameter int unsigned DataW = 256
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Write a beat.
  input logic wr_valid_i,
  /// DW address of lane 0.
  input ep_pkg::mem_dw_t wr_dw_i,
  /// Data.
  input logic [DataW-1:0] wr_data_i,
  /// Byte enables.
  input logic [DataW/8-1:0] wr_be_i,

  /// Read requests of two clients, served in turn.
  input logic [1:0] rd_valid_i,
  /// The request is taken.
  output logic [1:0] rd_ready_o,
  /// DW addresses of lane 0.
  input ep_pkg::mem_dw_t [1:0] rd_dw_i,
  /// Data of the request taken in the cycle before.
  output logic [DataW-1:0] rd_data_o
);
  import ep_pkg::*;

  localparam int unsigned Lanes = DataW / 32;
  localparam int unsigned LaneW = $clog2(Lanes);
  localparam int unsigned RowW = $bits(mem_dw_t) - LaneW;

  typedef logic [LaneW-1:0] lane_t;
  typedef logic [RowW-1:0] row_t;

  // The two clients take turns.
  logic rd_sel;
  logic rd_last_q;
  mem_dw_t rd_dw;

  assign rd_sel = rd_last_q ? !rd_valid_i[0] : rd_valid_i[1];
  assign rd_ready_o = {rd_sel, !rd_sel};
  assign rd_dw = rd_dw_i[rd_sel];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) rd_last_q <= 1'b0;
    else if (|rd_valid_i) rd_last_q <= rd_sel;
  end

  lane_t wr_lane;
  lane_t rd_lane;
  lane_t rd_lane_q;

  assign wr_lane = wr_dw_i[LaneW-1:0];
  assign rd_lane = rd_dw[LaneW-1:0];

  always_ff @(posedge clk_i) rd_lane_q <= rd_lane;

  logic [Lanes-1:0][31:0] bank_rdata;

  for (genvar b = 0; b < Lanes; b++) begin : gen_bank
    (* no_rw_check *) logic [31:0] mem_q[2**RowW];

    // Payload lane of this bank; negative, modulo the lanes, when it takes the next row.
    logic [LaneW:0] wr_diff;
    logic [LaneW:0] rd_diff;
    lane_t payload_lane;
    row_t wr_row;
    row_t rd_row;
    logic [31:0] wdata;
    logic [3:0] be;
    logic [31:0] rdata_q;

    assign wr_diff = (LaneW + 1)'(b) - {1'b0, wr_lane};
    assign rd_diff = (LaneW + 1)'(b) - {1'b0, rd_lane};
    assign payload_lane = wr_diff[LaneW-1:0];
    assign wr_row = wr_dw_i[LaneW+:RowW] + row_t'(wr_diff[LaneW]);
    assign rd_row = rd_dw[LaneW+:RowW] + row_t'(rd_diff[LaneW]);
    assign wdata = wr_data_i[32*32'(payload_lane)+:32];
    assign be = wr_be_i[4*32'(payload_lane)+:4];

    always_ff @(posedge clk_i) begin
      for (int unsigned i = 0; i < 4; i++) begin
        if (wr_valid_i && be[i]) mem_q[wr_row][8*i+:8] <= wdata[8*i+:8];
      end
      if (|rd_valid_i) rdata_q <= mem_q[rd_row];
    end

    assign bank_rdata[b] = rdata_q;
  end

  for (genvar i = 0; i < Lanes; i++) begin : gen_lane
    lane_t bank;

    assign bank = lane_t'(i) + rd_lane_q;
    assign rd_data_o[32*i+:32] = bank_rdata[bank];
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) $onehot(rd_ready_o));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(|rd_valid_i) || |(rd_valid_i & rd_ready_o));

endmodule
