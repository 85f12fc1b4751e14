// SPDX-License-Identifier: MIT OR Apache-2.0

/// Turns descriptors, in order, into pieces of contiguous memory: passes on what is contiguous,
/// follows the lists of the others. The queue of pieces behind it lets a list be read while
/// earlier data is moved.
///
/// A list that is malformed or cannot be read ends its descriptor, when the reads of the list that
/// are under way have ended; pieces before are moved.
///
/// Handshake kind: ready/valid on descriptors, requests and pieces; the slot is taken with its
/// descriptor.
module ep_dma_list #(
  /// Beat width in bits.
  parameter int unsigned DataW = 256,
  /// Pieces that wait.
  parameter int unsigned Depth = 16
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A descriptor is offered.
  input logic desc_valid_i,
  /// The descriptor is taken.
  output logic desc_ready_o,
  /// What it asks for.
  input ep_pkg::transfer_t desc_i,
  /// A slot for it is free.
  input logic slot_valid_i,
  /// The slot, taken with the descriptor.
  input ep_pkg::slot_t slot_i,

  /// The function's ID.
  input logic [15:0] bdf_i,
  /// Tag for the read.
  input ep_pkg::tag_t tag_i,
  /// A read of a list is to be sent.
  output logic req_valid_o,
  /// The read is taken.
  input logic req_ready_i,
  /// The read.
  output ep_pkg::src_job_t req_job_o,
  /// Whom it belongs to.
  output ep_pkg::owner_t req_owner_o,
  /// What is to be read.
  output ep_pkg::progress_t req_progress_o,

  /// Something happened to a read of a list.
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
  /// Where its payload goes in the list buffer, with the first beat.
  input ep_pkg::sink_job_t cpl_sink_i,
  /// Payload.
  input logic [DataW-1:0] cpl_data_i,

  /// A piece.
  output logic work_valid_o,
  /// The piece is taken.
  input logic work_ready_i,
  /// The piece.
  output ep_pkg::work_t work_o
);
  import tlp_pkg::*;
  import ep_pkg::*;

  // The descriptor whose list is followed.
  logic busy_q;
  slot_t slot_q;
  common_t common_q;
  logic sgl_q;

  logic direct;
  logic take;
  logic start;
  logic room;

  assign direct = desc_i.mode == ModeContiguous;
  assign desc_ready_o = slot_valid_i && !busy_q && (room || !direct);
  assign take = desc_valid_i && desc_ready_o;
  assign start = take && !direct;

  // Walkers.
  logic prp_start;
  logic sgl_start;
  logic [1:0] fetch;
  logic [1:0][63:3] fetch_addr;
  logic [1:0][28:0] fetch_words;
  logic word_valid;
  logic [1:0] word_ready;
  logic [63:0] word;
  logic [2:0] word_status;
  logic [1:0] piece_valid;
  piece_t [1:0] piece;
  logic piece_ready;

  assign prp_start = start && desc_i.mode == ModePrp;
  assign sgl_start = start && desc_i.mode == ModeSgl;

  ep_dma_prp i_prp (
    .clk_i, .rst_ni,
    .start_i(prp_start), .extent_i(desc_i.extent), .prp2_i(desc_i.addr2),
    .fetch_o(fetch[0]), .fetch_addr_o(fetch_addr[0]), .fetch_words_o(fetch_words[0]),
    .word_valid_i(word_valid && !sgl_q), .word_ready_o(word_ready[0]), .word_i(word),
    .word_status_i(word_status),
    .piece_valid_o(piece_valid[0]), .piece_ready_i(piece_ready), .piece_o(piece[0])
  );

  ep_dma_sgl i_sgl (
    .clk_i, .rst_ni,
    .start_i(sgl_start), .extent_i(desc_i.extent), .write_i(common_q.write),
    .high_i({desc_i.addr2[63:56], desc_i.addr2[31:0]}),
    .fetch_o(fetch[1]), .fetch_addr_o(fetch_addr[1]), .fetch_words_o(fetch_words[1]),
    .word_valid_i(word_valid && sgl_q), .word_ready_o(word_ready[1]), .word_i(word),
    .word_status_i(word_status),
    .piece_valid_o(piece_valid[1]), .piece_ready_i(piece_ready), .piece_o(piece[1])
  );

  // What is wrong with the list ends the descriptor once no read of the list is in flight: its
  // memory is the host's again with the completion record.
  logic bad;
  logic ending_q;
  piece_t end_q;
  logic idle;
  logic [63:3] req_addr;
  logic [4:0] req_words;
  block_t req_block;

  assign bad = piece_valid[sgl_q] && piece[sgl_q].code != ListOk;
  assign piece_ready = room || bad;

  ep_dma_fetch #(.DataW(DataW)) i_fetch (
    .clk_i, .rst_ni,
    .start_i(fetch[sgl_q]), .addr_i(fetch_addr[sgl_q]), .words_i(fetch_words[sgl_q]),
    .stop_i(bad), .idle_o(idle),
    .req_valid_o, .req_ready_i, .req_addr_o(req_addr), .req_words_o(req_words),
    .req_block_o(req_block),
    .event_i, .event_block_i, .event_status_i, .event_done_i,
    .cpl_valid_i, .cpl_sop_i, .cpl_sink_i, .cpl_data_i,
    .word_valid_o(word_valid), .word_ready_i(word_ready[sgl_q]), .word_o(word),
    .word_status_o(word_status)
  );

  // The read as a TLP.
  always_comb begin
    req_job_o = '0;
    req_job_o.kind = SrcNone;
    req_job_o.head = mk_head(common_q, 1'b0, {req_addr, 3'd0}, {5'd0, req_words, 1'b0},
                             4'hf, 4'hf, bdf_i, {4'd0, tag_i});
  end

  assign req_owner_o = '{
      of_list: 1'b1, block: req_block, slot: slot_q, discard: 1'b0, rid: requester(common_q, bdf_i)
  };
  assign req_progress_o = '{
      bytes: {5'd0, req_words, 3'd0}, lower: {req_addr[6:3], 3'd0},
      local_dw: mem_dw_t'({req_block, req_addr[6:3], 1'b0})
  };

  // Pieces.
  logic push;
  work_t work;
  logic [$clog2(Depth+1)-1:0] waiting;

  assign push = ending_q ? room && idle
      : busy_q ? room && piece_valid[sgl_q] && !bad
      : take && direct;

  always_comb begin
    work.slot = busy_q ? slot_q : slot_i;
    work.common = busy_q ? common_q : desc_i.common;
    work.piece = ending_q ? end_q : piece[sgl_q];
    if (!busy_q) begin
      work.piece = '{move: 1'b1, last: 1'b1, status: '0, code: ListOk, extent: desc_i.extent};
    end
  end

  fifo #(.T(work_t), .Depth(Depth)) i_work (
    .clk_i, .rst_ni,
    .wvalid_i(push), .wready_o(room), .wdata_i(work),
    .rvalid_o(work_valid_o), .rready_i(work_ready_i), .rdata_o(work_o),
    .depth_o(waiting)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      slot_q <= '0;
      common_q <= '0;
      sgl_q <= 1'b0;
      ending_q <= 1'b0;
      end_q <= '0;
    end else begin
      if (push && work.piece.last) begin
        busy_q <= 1'b0;
        ending_q <= 1'b0;
      end
      if (bad) begin
        ending_q <= 1'b1;
        end_q <= piece[sgl_q];
      end
      if (start) begin
        busy_q <= 1'b1;
        slot_q <= slot_i;
        common_q <= desc_i.common;
        sgl_q <= sgl_start;
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !push || room);
  assert property (@(posedge clk_i) disable iff (!rst_ni) 32'(waiting) <= Depth);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      piece_valid == '0 || (busy_q && !ending_q && piece_valid == 2'b01 << sgl_q));
  // Nothing is left of a list that was followed to its end.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(push && work.piece.last && busy_q) || idle || (word_valid && word_ready[sgl_q]));
  assert property (@(posedge clk_i) disable iff (!rst_ni) busy_q || idle);

endmodule
