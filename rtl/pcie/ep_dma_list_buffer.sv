// SPDX-License-Identifier: MIT OR Apache-2.0

/// Buffer for the contents of lists: written by beats of payload, read by quad-words.
///
/// One bank holds one quad-word lane of a beat, as in `ep_mem`: a beat that begins at lane s takes
/// banks s to the last from one row and the others from the next.
///
/// Handshake kind: valid only; the read is combinational.
module ep_dma_list_buffer #(
  /// Beat width in bits.
  parameter int unsigned DataW = 256,
  /// Quad-words held, a power of two.
  parameter int unsigned Words = 16 * ep_pkg::ListBlocks,
  /// Width of an index.
  parameter int unsigned IndexW = $clog2(Words)
) (
  /// Clock.
  input logic clk_i,

  /// Write a beat.
  input logic wr_valid_i,
  /// Quad-word of lane 0.
  input logic [IndexW-1:0] wr_index_i,
  /// Data.
  input logic [DataW-1:0] wr_data_i,
  /// Quad-words written.
  input logic [DataW/64-1:0] wr_en_i,

  /// Quad-word to be read.
  input logic [IndexW-1:0] rd_index_i,
  /// Its contents.
  output logic [63:0] rd_data_o
);

  localparam int unsigned Lanes = DataW / 64;
  localparam int unsigned Rows = Words / Lanes;
  localparam int unsigned LaneW = (Lanes > 1) ? $clog2(Lanes) : 1;

  typedef logic [LaneW-1:0] lane_t;
  typedef logic [$clog2(Rows)-1:0] row_t;

  logic [Lanes-1:0][63:0] rdata;
  row_t rd_row;

  assign rd_row = row_t'(32'(rd_index_i) / Lanes);

  for (genvar b = 0; b < Lanes; b++) begin : gen_bank
    logic [63:0] mem_q[Rows];

    // The lane of the beat that this bank takes, and the row it goes to.
    lane_t lane;
    row_t row;

    assign lane = lane_t'((Lanes + b - 32'(wr_index_i) % Lanes) % Lanes);
    assign row = row_t'((32'(wr_index_i) + 32'(lane)) / Lanes);

    always_ff @(posedge clk_i) begin
      if (wr_valid_i && wr_en_i[lane]) mem_q[row] <= wr_data_i[64*32'(lane)+:64];
    end

    assign rdata[b] = mem_q[rd_row];
  end

  assign rd_data_o = rdata[lane_t'(32'(rd_index_i) % Lanes)];

endmodule
