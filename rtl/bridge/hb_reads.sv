// SPDX-License-Identifier: MIT OR Apache-2.0

/// Reads under way at the memory port on behalf of TLPs: hands out tags and makes completions from
/// the response chunks, one completion a chunk (PCIe 6.0 §2.3.1.1). An access fault completes with
/// Completer Abort.
///
/// Handshake kinds: ready/valid (`alloc`, `rsp`, `cpl`); `cpl` does not wait for `cpl_ready_i`.
module hb_reads #(
  /// Beat type of the completions.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Reads under way at most; a power of two, at most 128.
  parameter int unsigned NumTags = 64,
  localparam int unsigned TagW = $clog2(NumTags)
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A tag is free.
  output logic alloc_ready_o,
  /// The tag.
  output logic [TagW-1:0] alloc_tag_o,
  /// It is taken for this request.
  input logic alloc_take_i,
  /// Header of the request.
  input tlp_pkg::tlp_hdr_t alloc_hdr_i,

  /// Response beat of a TLP's read.
  input logic rsp_valid_i,
  /// Taken.
  output logic rsp_ready_o,
  /// The beat.
  input mem_pkg::mem_rsp_t rsp_i,

  /// Beat of a completion.
  output logic cpl_valid_o,
  /// Taken.
  input logic cpl_ready_i,
  /// The beat.
  output beat_t cpl_beat_o,

  /// Tags in use.
  output logic [NumTags-1:0] used_o
);

  import tlp_pkg::*;

  tlp_hdr_t hdr_q[NumTags];
  logic [12:0] left_q[NumTags];   // bytes not yet completed
  logic [6:0] lower_q[NumTags];   // address of the next of them
  logic [NumTags-1:0] used_q;
  logic [TagW-1:0] tag;
  tlp_hdr_t req;
  logic [12:0] left;
  logic [12:0] chunk;
  logic fire;
  logic [TagW-1:0] tag_q;

  // The next tag is chosen ahead and kept, so that a request that waits does not change. It may
  // not be the one that is being taken.
  logic next_valid_q;
  logic [TagW-1:0] next_q;
  logic [NumTags-1:0] busy;
  logic [TagW-1:0] first;

  always_comb begin
    busy = used_q;
    if (alloc_take_i) busy[next_q] = 1'b1;
    first = '0;
    for (int unsigned i = NumTags; i > 0; i--) begin
      if (!busy[i-1]) first = TagW'(i - 1);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      next_valid_q <= 1'b0;
      next_q <= '0;
    end else if (!next_valid_q || alloc_take_i) begin
      next_valid_q <= busy != '1;
      next_q <= first;
    end
  end

  assign alloc_tag_o = next_q;
  assign alloc_ready_o = next_valid_q;
  assign used_o = used_q;

  // All beats of a chunk belong to the tag of its first.
  assign tag = rsp_i.sop ? rsp_i.tag[TagW-1:0] : tag_q;
  assign req = hdr_q[tag];
  assign left = left_q[tag];
  // Bytes of this chunk that the request asked for, if more are to come: from the first enabled
  // byte to the end of the chunk.
  assign chunk = {rsp_i.len_dw, 2'b00} - 13'(lower_q[tag][1:0]);
  assign fire = rsp_valid_i && cpl_ready_i;

  always_comb begin
    cpl_beat_o = '0;
    cpl_beat_o.sop = rsp_i.sop;
    cpl_beat_o.eop = rsp_i.eop;
    cpl_beat_o.data = rsp_i.data;
    if (rsp_i.error) begin
      cpl_beat_o.head.hdr = mk_cpl_hdr(1'b0, CplCa, bridge_pkg::BridgeId, req, 11'd0,
                                       left, lower_q[tag]);
    end else begin
      cpl_beat_o.head.hdr = mk_cpl_hdr(1'b1, CplSc, bridge_pkg::BridgeId, req, rsp_i.len_dw,
                                       left, lower_q[tag]);
      cpl_beat_o.head.hdr[14] = rsp_i.poison;  // EP
    end
  end

  assign cpl_valid_o = rsp_valid_i;
  assign rsp_ready_o = cpl_ready_i;

  always_ff @(posedge clk_i) begin
    if (alloc_take_i) begin
      hdr_q[alloc_tag_o] <= alloc_hdr_i;
      left_q[alloc_tag_o] <= read_byte_count(alloc_hdr_i);
      lower_q[alloc_tag_o] <= 7'(hdr_addr(alloc_hdr_i))
                              | 7'(be_offset(hdr_first_be(alloc_hdr_i)));
    end
    if (fire && rsp_i.sop) begin
      left_q[tag] <= left - chunk;
      lower_q[tag] <= lower_q[tag] + 7'(chunk);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      used_q <= '0;
      tag_q <= '0;
    end else begin
      if (alloc_take_i) used_q[alloc_tag_o] <= 1'b1;
      if (fire) begin
        tag_q <= tag;
        if (rsp_i.eop && rsp_i.last) used_q[tag] <= 1'b0;
      end
    end
  end

  // Answers are for reads under way, and no chunk but the last one completes the request.
  assert property (@(posedge clk_i) disable iff (!rst_ni) !rsp_valid_i || used_q[tag]);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(fire && rsp_i.sop && rsp_i.eop && !rsp_i.last) || left > chunk);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !alloc_take_i || alloc_ready_o);

endmodule
