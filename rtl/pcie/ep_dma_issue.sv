// SPDX-License-Identifier: MIT OR Apache-2.0

/// Splits the pieces of descriptors, in order, into memory requests: no request crosses a multiple
/// of Max_Payload_Size (writes) or Max_Read_Request_Size (reads), hence none a 4 KiB boundary
/// (PCIe 6.0 §2.2.7).
///
/// Handshake kind: ready/valid on pieces, jobs and ends; identifiers are taken when used.
module ep_dma_issue (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A piece is offered.
  input logic work_valid_i,
  /// The piece is taken.
  output logic work_ready_o,
  /// The piece.
  input ep_pkg::work_t work_i,

  /// A read tag is free.
  input logic tag_valid_i,
  /// The tag.
  input ep_pkg::tag_t tag_i,
  /// The tag is taken by a read with this owner and progress.
  output logic tag_take_o,
  /// Whom the read belongs to.
  output ep_pkg::owner_t owner_o,
  /// What is to be read.
  output ep_pkg::progress_t progress_o,

  /// The function's ID.
  input logic [15:0] bdf_i,
  /// Max_Payload_Size as encoded in Device Control.
  input logic [2:0] mps_i,
  /// Max_Read_Request_Size as encoded in Device Control.
  input logic [2:0] mrrs_i,

  /// Request to send.
  output logic job_valid_o,
  /// The job is taken.
  input logic job_ready_i,
  /// The job.
  output ep_pkg::src_job_t job_o,

  /// There is room to note a write.
  input logic write_room_i,
  /// A request was issued.
  output logic issue_o,
  /// Of this slot.
  output ep_pkg::slot_t issue_slot_o,
  /// It is a write.
  output logic issue_write_o,
  /// It is the last of its descriptor.
  output logic issue_last_o,

  /// A descriptor ends without a further request.
  output logic end_valid_o,
  /// The end is taken.
  input logic end_ready_i,
  /// The descriptor.
  output ep_pkg::slot_t end_slot_o,
  /// Status to be merged.
  output logic [2:0] end_status_o,
  /// Why its list ended it.
  output ep_pkg::list_code_e end_code_o
);
  import tlp_pkg::*;
  import ep_pkg::*;

  logic busy_q;
  work_t work_q;  // its extent is what is left
  extent_t extent;
  logic [7:0] write_tag_q;

  assign extent = work_q.piece.extent;

  // The next request.
  logic [11:0] mask;
  logic [12:0] room;
  logic [12:0] bytes;
  logic [12:0] end_bytes;  // from the first DW on
  logic [10:0] len_dw;
  logic [3:0] head_be;
  logic [3:0] tail_be;
  logic last;

  always_comb begin
    if (work_q.common.write) mask = (mps_i >= 3'd2) ? 12'd511 : (mps_i == 3'd1) ? 12'd255 : 12'd127;
    else mask = (mrrs_i >= 3'd5) ? 12'd4095 : 12'(12'd128 << mrrs_i) - 12'd1;
  end

  assign room = {1'b0, mask} + 13'd1 - {1'b0, extent.addr[11:0] & mask};
  assign last = extent.len <= len_t'(room);
  assign bytes = last ? extent.len[12:0] : room;
  assign end_bytes = bytes + 13'(extent.addr[1:0]);
  assign len_dw = 11'((end_bytes + 13'd3) >> 2);
  assign head_be = be_from(extent.addr[1:0]);
  assign tail_be = be_until(end_bytes[1:0]);

  tlp_head_t head;

  assign head = mk_head(work_q.common, work_q.common.write, extent.addr, len_dw,
                        (len_dw == 11'd1) ? head_be & tail_be : head_be,
                        (len_dw == 11'd1) ? 4'h0 : tail_be, bdf_i,
                        work_q.common.write ? {2'b00, write_tag_q} : {4'd0, tag_i});

  always_comb begin
    job_o = '0;
    job_o.head = head;
    job_o.kind = !work_q.common.write ? SrcNone : work_q.common.pattern ? SrcGen : SrcMem;
    job_o.len_dw = work_q.common.write ? len_dw : '0;
    job_o.local_dw = extent.local_dw;
    job_o.gen_n = extent.addr[33:2];
    job_o.gen_seed = work_q.common.seed;
  end

  assign job_valid_o = busy_q && work_q.piece.move
      && (work_q.common.write ? write_room_i : tag_valid_i);
  assign issue_o = job_valid_o && job_ready_i;
  assign issue_slot_o = work_q.slot;
  assign issue_write_o = work_q.common.write;
  assign issue_last_o = last && work_q.piece.last;

  assign tag_take_o = issue_o && !work_q.common.write;
  assign owner_o = '{
      of_list: 1'b0, block: '0, slot: work_q.slot, discard: work_q.common.pattern,
      rid: requester(work_q.common, bdf_i)
  };
  assign progress_o = '{bytes: bytes, lower: extent.addr[6:0], local_dw: extent.local_dw};

  assign end_valid_o = busy_q && !work_q.piece.move;
  assign end_slot_o = work_q.slot;
  assign end_status_o = work_q.piece.status;
  assign end_code_o = work_q.piece.code;

  logic finished;

  assign finished = (issue_o && last) || (end_valid_o && end_ready_i);
  assign work_ready_o = !busy_q || finished;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      work_q <= '0;
      write_tag_q <= '0;
    end else begin
      if (issue_o) begin
        work_q.piece.extent.addr <= extent.addr + 64'(bytes);
        work_q.piece.extent.len <= extent.len - len_t'(bytes);
        work_q.piece.extent.local_dw <= extent.local_dw + mem_dw_t'(end_bytes[12:2]);
        if (work_q.common.write) write_tag_q <= write_tag_q + 8'd1;
      end
      if (finished) busy_q <= 1'b0;
      if (work_valid_i && work_ready_o) begin
        busy_q <= 1'b1;
        work_q <= work_i;
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(busy_q && work_q.piece.move) || extent.len != '0);
  // What ends a descriptor ends it; what its list found wrong moves nothing.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !busy_q || work_q.piece.move || work_q.piece.last);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(busy_q && work_q.piece.move) || work_q.piece.code == ListOk);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !issue_o || 32'(extent.addr[11:0]) + 32'(bytes) <= 32'd4096);

endmodule
