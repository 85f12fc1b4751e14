// SPDX-License-Identifier: MIT OR Apache-2.0

/// Splits descriptors, in order, into memory requests: no request crosses a multiple of
/// Max_Payload_Size (writes) or Max_Read_Request_Size (reads), hence none a 4 KiB boundary
/// (PCIe 6.0 §2.2.7).
///
/// Handshake kind: ready/valid on descriptors and jobs; identifiers are taken when used.
module ep_dma_issue (
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
  output logic issue_last_o
);
  import tlp_pkg::*;
  import ep_pkg::*;

  logic busy_q;
  transfer_t desc_q;  // what is left of it
  slot_t slot_q;
  logic [7:0] write_tag_q;

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
    if (desc_q.write) mask = (mps_i >= 3'd2) ? 12'd511 : (mps_i == 3'd1) ? 12'd255 : 12'd127;
    else mask = (mrrs_i >= 3'd5) ? 12'd4095 : 12'(12'd128 << mrrs_i) - 12'd1;
  end

  assign room = {1'b0, mask} + 13'd1 - {1'b0, desc_q.addr[11:0] & mask};
  assign last = desc_q.len <= 21'(room);
  assign bytes = last ? desc_q.len[12:0] : room;
  assign end_bytes = bytes + 13'(desc_q.addr[1:0]);
  assign len_dw = 11'((end_bytes + 13'd3) >> 2);
  assign head_be = be_from(desc_q.addr[1:0]);
  assign tail_be = be_until(end_bytes[1:0]);

  logic [15:0] rid;
  tlp_head_t head;

  assign rid = desc_q.rid_ovr ? desc_q.rid : bdf_i;

  always_comb begin
    head.hdr = mk_mem_hdr(desc_q.write, {desc_q.addr[63:2], 2'b00}, len_dw,
                          (len_dw == 11'd1) ? head_be & tail_be : head_be,
                          (len_dw == 11'd1) ? 4'h0 : tail_be, rid,
                          desc_q.write ? {2'b00, write_tag_q} : {4'd0, tag_i},
                          desc_q.attr, desc_q.at, desc_q.tc);
    head.pfx_valid = desc_q.pasid_valid;
    head.pfx = desc_q.pasid_valid
        ? {PfxPasid, desc_q.pmr, desc_q.er, 2'b00, desc_q.pasid} : '0;
  end

  always_comb begin
    job_o = '0;
    job_o.head = head;
    job_o.kind = !desc_q.write ? SrcNone : desc_q.pattern ? SrcGen : SrcMem;
    job_o.len_dw = desc_q.write ? len_dw : '0;
    job_o.local_dw = desc_q.local_dw;
    job_o.gen_n = desc_q.addr[33:2];
    job_o.gen_seed = desc_q.seed;
  end

  assign job_valid_o = busy_q && (desc_q.write ? write_room_i : tag_valid_i);
  assign issue_o = job_valid_o && job_ready_i;
  assign issue_slot_o = slot_q;
  assign issue_write_o = desc_q.write;
  assign issue_last_o = last;

  assign tag_take_o = issue_o && !desc_q.write;
  assign owner_o = '{slot: slot_q, discard: desc_q.pattern, rid: rid};
  assign progress_o = '{bytes: bytes, lower: desc_q.addr[6:0], local_dw: desc_q.local_dw};

  assign desc_ready_o = slot_valid_i && (!busy_q || (issue_o && last));

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      desc_q <= '0;
      slot_q <= '0;
      write_tag_q <= '0;
    end else begin
      if (issue_o) begin
        desc_q.addr <= desc_q.addr + 64'(bytes);
        desc_q.len <= desc_q.len - 21'(bytes);
        desc_q.local_dw <= desc_q.local_dw + mem_dw_t'(end_bytes[12:2]);
        if (desc_q.write) write_tag_q <= write_tag_q + 8'd1;
        if (last) busy_q <= 1'b0;
      end
      if (desc_valid_i && desc_ready_o) begin
        busy_q <= 1'b1;
        desc_q <= desc_i;
        slot_q <= slot_i;
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !busy_q || desc_q.len != '0);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !issue_o || 32'(desc_q.addr[11:0]) + 32'(bytes) <= 32'd4096);

endmodule
