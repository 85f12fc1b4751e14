// SPDX-License-Identifier: MIT OR Apache-2.0

/// Reads a stretch of a list ahead of its use and gives its quad-words in order, however the
/// reads complete.
///
/// A read asks for at most one block of 128 bytes and is aligned to it, so it obeys every
/// Max_Read_Request_Size and the 4 KiB rule (PCIe 6.0 §2.2.7); it never asks for more than the
/// stretch. `ListBlocks` reads are in flight at most: that many blocks the buffer has.
///
/// Handshake kind: ready/valid on requests and quad-words; the rest is valid only. A request is
/// stable until taken or until `stop_i`.
module ep_dma_fetch #(
  /// Beat width in bits.
  parameter int unsigned DataW = 256
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Begin a stretch; only when idle.
  input logic start_i,
  /// Its address.
  input logic [63:3] addr_i,
  /// Its length in quad-words.
  input logic [28:0] words_i,
  /// Give up the stretch: request no more, drop what comes.
  input logic stop_i,
  /// Nothing is in flight, all quad-words are taken.
  output logic idle_o,

  /// A read to be sent.
  output logic req_valid_o,
  /// The read is taken.
  input logic req_ready_i,
  /// Its address.
  output logic [63:3] req_addr_o,
  /// Its length in quad-words, 1 to 16.
  output logic [4:0] req_words_o,
  /// The block that takes its data.
  output ep_pkg::block_t req_block_o,

  /// Something happened to a read.
  input logic event_i,
  /// Its block.
  input ep_pkg::block_t event_block_i,
  /// Status to be merged.
  input logic [2:0] event_status_i,
  /// The read has ended.
  input logic event_done_i,
  /// A beat of a completion.
  input logic cpl_valid_i,
  /// It is the first.
  input logic cpl_sop_i,
  /// Where its payload goes, with the first beat.
  input ep_pkg::sink_job_t cpl_sink_i,
  /// Payload.
  input logic [DataW-1:0] cpl_data_i,

  /// A quad-word, or the failure of its read.
  output logic word_valid_o,
  /// It is taken.
  input logic word_ready_i,
  /// The quad-word.
  output logic [63:0] word_o,
  /// Worst status of its read.
  output logic [2:0] word_status_o
);
  import ep_pkg::*;

  // To be requested.
  logic [63:3] addr_q;
  logic [28:0] left_q;
  block_t wr_block_q;
  // To be given.
  logic [28:0] unread_q;
  block_t rd_block_q;
  logic [3:0] rd_word_q;
  // Blocks from their request until their last quad-word is taken.
  logic [ListBlocks-1:0] busy_q;
  logic [ListBlocks-1:0] done_q;
  logic [ListBlocks-1:0][2:0] status_q;

  logic [4:0] room;
  logic req_fire;
  logic word_fire;
  logic block_read;

  assign room = 5'd16 - {1'b0, addr_q[6:3]};
  assign req_valid_o = left_q != '0 && !busy_q[wr_block_q];
  assign req_addr_o = addr_q;
  assign req_words_o = (left_q < 29'(room)) ? left_q[4:0] : room;
  assign req_block_o = wr_block_q;
  assign req_fire = req_valid_o && req_ready_i;

  assign word_valid_o = unread_q != '0 && busy_q[rd_block_q] && done_q[rd_block_q];
  assign word_status_o = status_q[rd_block_q];
  assign word_fire = word_valid_o && word_ready_i;
  assign block_read = word_fire && (rd_word_q == '1 || unread_q == 29'd1);

  assign idle_o = left_q == '0 && unread_q == '0 && busy_q == '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      addr_q <= '0;
      left_q <= '0;
      wr_block_q <= '0;
      unread_q <= '0;
      rd_block_q <= '0;
      rd_word_q <= '0;
      busy_q <= '0;
      done_q <= '0;
      status_q <= '0;
    end else begin
      // Given up: a block is free when its read has ended.
      if (unread_q == '0) busy_q <= busy_q & ~done_q;
      if (event_i) begin
        if (event_done_i) done_q[event_block_i] <= 1'b1;
        if (event_status_i > status_q[event_block_i]) status_q[event_block_i] <= event_status_i;
      end
      if (word_fire) begin
        unread_q <= unread_q - 29'd1;
        rd_word_q <= rd_word_q + 4'd1;
      end
      if (block_read) begin
        busy_q[rd_block_q] <= 1'b0;
        rd_block_q <= rd_block_q + block_t'(1);
        rd_word_q <= '0;
      end
      if (req_fire) begin
        addr_q <= addr_q + 61'(req_words_o);
        left_q <= left_q - 29'(req_words_o);
        wr_block_q <= wr_block_q + block_t'(1);
        busy_q[wr_block_q] <= 1'b1;
        done_q[wr_block_q] <= 1'b0;
        status_q[wr_block_q] <= '0;
      end
      if (stop_i) begin
        left_q <= '0;
        unread_q <= '0;
      end
      if (start_i) begin
        addr_q <= addr_i;
        left_q <= words_i;
        unread_q <= words_i;
        rd_block_q <= wr_block_q;
        rd_word_q <= addr_i[6:3];
      end
    end
  end

  // Data of a read lie in its block as in the 128 bytes of memory that they come from.
  logic wr_valid;
  mem_dw_t wr_dw;
  logic [DataW-1:0] wr_data;
  logic [DataW/8-1:0] wr_be;
  logic [DataW/64-1:0] wr_en;

  ep_mem_sink #(.DataW(DataW)) i_sink (
    .clk_i, .rst_ni,
    .valid_i(cpl_valid_i), .sop_i(cpl_sop_i), .job_i(cpl_sink_i), .data_i(cpl_data_i),
    .wr_valid_o(wr_valid), .wr_dw_o(wr_dw), .wr_data_o(wr_data), .wr_be_o(wr_be)
  );

  always_comb begin
    for (int unsigned i = 0; i < DataW / 64; i++) wr_en[i] = &wr_be[8*i+:8];
  end

  ep_dma_list_buffer #(.DataW(DataW)) i_buffer (
    .clk_i,
    .wr_valid_i(wr_valid), .wr_index_i(wr_dw[1+:$bits(block_t)+4]), .wr_data_i(wr_data),
    .wr_en_i(wr_en),
    .rd_index_i({rd_block_q, rd_word_q}), .rd_data_o(word_o)
  );

  assert property (@(posedge clk_i) disable iff (!rst_ni) !start_i || (idle_o && words_i != '0));
  assert property (@(posedge clk_i) disable iff (!rst_ni) !(start_i && stop_i));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !event_i || (busy_q[event_block_i] && !done_q[event_block_i]));
  assert property (@(posedge clk_i) disable iff (!rst_ni) left_q <= unread_q);
  // Whole quad-words, in place.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !wr_valid || (!wr_dw[0] && wr_dw[$bits(mem_dw_t)-1:$bits(block_t)+5] == '0));

endmodule
