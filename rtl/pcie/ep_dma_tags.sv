// SPDX-License-Identifier: MIT OR Apache-2.0

/// Reads in flight: checks each completion against the request that owns its tag, says where its
/// payload goes, and reports the end of the read or its time-out (PCIe 6.0 §2.2.9, §2.8).
///
/// A completion that no read in flight explains is counted and dropped (§2.3.2). A read whose
/// completions were dropped ends by time-out.
///
/// Handshake kind: valid only; everything is taken at once.
module ep_dma_tags #(
  /// Completion timeout in cycles from the request's leaving.
  parameter int unsigned CplTimeout = 1 << 20
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A tag is free.
  output logic tag_valid_o,
  /// The tag.
  output ep_pkg::tag_t tag_o,
  /// A read takes the tag.
  input logic tag_take_i,
  /// Whom the read belongs to.
  input ep_pkg::owner_t owner_i,
  /// What is to be read.
  input ep_pkg::progress_t progress_i,
  /// Tags in use.
  output logic [6:0] used_o,

  /// A read request has left.
  input logic sent_i,
  /// Its tag.
  input ep_pkg::tag_t sent_tag_i,

  /// A beat of a completion.
  input logic cpl_valid_i,
  /// It is the first.
  input logic cpl_sop_i,
  /// It is the last.
  input logic cpl_eop_i,
  /// Header, with the first beat.
  input tlp_pkg::tlp_hdr_t cpl_hdr_i,
  /// Where the payload goes in local memory, with the first beat.
  output ep_pkg::sink_job_t sink_o,
  /// Where it goes in the list buffer.
  output ep_pkg::sink_job_t list_sink_o,

  /// Something happened to a read of data.
  output logic event_o,
  /// Something happened to a read of a list.
  output logic list_event_o,
  /// Its block of the list buffer.
  output ep_pkg::block_t list_block_o,
  /// Slot of its descriptor.
  output ep_pkg::slot_t event_slot_o,
  /// Status to be merged.
  output logic [2:0] event_status_o,
  /// The read has ended.
  output logic event_done_o,
  /// A completion was unexpected or malformed.
  output logic unexpected_o
);
  import tlp_pkg::*;
  import ep_pkg::*;

  // Unsent, or sent and waiting; what is left is in `base_q` until the first completion.
  logic [Tags-1:0] busy;
  logic [Tags-1:0] sent_q;
  logic [Tags-1:0] fresh_q;
  owner_t owner_q[Tags];
  progress_t base_q[Tags];
  progress_t rest_q[Tags];

  // The completion at hand.
  logic [9:0] wide_tag;
  tag_t tag;
  progress_t progress;
  logic known;

  assign wide_tag = cpl_tag(cpl_hdr_i);
  assign tag = wide_tag[5:0];
  assign progress = fresh_q[tag] ? base_q[tag] : rest_q[tag];
  assign known = wide_tag[9:6] == '0 && busy[tag] && sent_q[tag]
      && cpl_req_id(cpl_hdr_i) == owner_q[tag].rid;

  // Success with data: bytes and DW must be the next of the read.
  logic success;
  logic [13:0] need;  // bytes from the first DW to the end of the read
  logic [11:0] need_dw;
  logic [11:0] len_dw;
  logic fits;
  logic ends;
  logic good;
  logic failed;
  progress_t advanced;

  assign success = cpl_status(cpl_hdr_i) == CplSc;
  assign need = 14'(progress.bytes) + 14'(progress.lower[1:0]);
  assign need_dw = 12'((need + 14'd3) >> 2);
  assign len_dw = 12'(hdr_len_dw(cpl_hdr_i));
  assign ends = len_dw == need_dw;
  // Only the last completion of a read may end off the Read Completion Boundary of 64 bytes.
  assign fits = hdr_has_data(cpl_hdr_i) && cpl_byte_count(cpl_hdr_i) == progress.bytes
      && cpl_lower_addr(cpl_hdr_i) == progress.lower
      && (ends || (len_dw < need_dw && 4'(progress.lower[5:2] + len_dw[3:0]) == '0));
  assign good = known && success && fits;
  assign failed = known && !success;

  assign advanced = '{
      bytes: progress.bytes - {len_dw[10:0], 2'b00} + 13'(progress.lower[1:0]),
      lower: {progress.lower[6:2] + len_dw[4:0], 2'b00},
      local_dw: progress.local_dw + mem_dw_t'(len_dw)
  };

  logic store;

  assign store = good && !hdr_ep(cpl_hdr_i);

  always_comb begin
    sink_o.en = store && !owner_q[tag].of_list && !owner_q[tag].discard;
    sink_o.local_dw = progress.local_dw;
    sink_o.len_dw = len_dw[10:0];
    sink_o.last_be = ends ? be_until(need[1:0]) : 4'hf;
    sink_o.first_be = be_from(progress.lower[1:0]);
    if (len_dw == 12'd1) sink_o.first_be = sink_o.first_be & sink_o.last_be;
    list_sink_o = sink_o;
    list_sink_o.en = store && owner_q[tag].of_list;
  end

  // What the last beat reports.
  typedef struct packed {
    logic report;
    logic done;
    logic [2:0] status;
    tag_t tag;
  } verdict_t;

  verdict_t verdict;
  verdict_t verdict_q;
  logic mid_q;

  always_comb begin
    verdict = verdict_q;
    if (cpl_sop_i) begin
      verdict.report = good || failed;
      verdict.done = failed || ends;
      // Poisoned data counts as an abort; a status without meaning here as UR (§2.2.9.1).
      verdict.status = hdr_ep(cpl_hdr_i) && good ? CplCa
          : success ? CplSc
          : cpl_status(cpl_hdr_i) == CplCa ? CplCa : CplUr;
      verdict.tag = tag;
    end
  end

  assign unexpected_o = cpl_valid_i && cpl_sop_i && !good && !failed;

  // Time-out: one tag is looked at each cycle, when no completion is being received.
  localparam int unsigned TimeW = $clog2(CplTimeout + 1) + 2;

  logic [TimeW-1:0] now_q;
  logic [TimeW-1:0] sent_at_q[Tags];
  tag_t scan_q;
  logic [TimeW-1:0] age;
  logic expired;

  assign age = now_q - sent_at_q[scan_q];
  assign expired = busy[scan_q] && sent_q[scan_q] && !mid_q && !cpl_valid_i
      && age >= TimeW'(CplTimeout);

  always_ff @(posedge clk_i) begin
    if (tag_take_i) owner_q[tag_o] <= owner_i;
    if (tag_take_i) base_q[tag_o] <= progress_i;
    if (cpl_valid_i && cpl_sop_i && good) rest_q[tag] <= advanced;
    if (sent_i) sent_at_q[sent_tag_i] <= now_q;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      now_q <= '0;
      scan_q <= '0;
      mid_q <= 1'b0;
      verdict_q <= '0;
      sent_q <= '0;
      fresh_q <= '0;
    end else begin
      now_q <= now_q + TimeW'(1);
      if (!expired) scan_q <= scan_q + tag_t'(1);
      if (cpl_valid_i) begin
        mid_q <= !cpl_eop_i;
        verdict_q <= verdict;
      end
      if (cpl_valid_i && cpl_sop_i && good) fresh_q[tag] <= 1'b0;
      if (sent_i) sent_q[sent_tag_i] <= 1'b1;
      if (tag_take_i) begin
        sent_q[tag_o] <= 1'b0;
        fresh_q[tag_o] <= 1'b1;
      end
    end
  end

  // A completion's report has precedence; the scan waits.
  logic cpl_event;
  logic any_event;
  logic free;
  tag_t event_tag;

  assign cpl_event = cpl_valid_i && cpl_eop_i && verdict.report;
  assign any_event = cpl_event || expired;
  assign event_tag = cpl_event ? verdict.tag : scan_q;
  assign event_o = any_event && !owner_q[event_tag].of_list;
  assign list_event_o = any_event && owner_q[event_tag].of_list;
  assign list_block_o = owner_q[event_tag].block;
  assign event_slot_o = owner_q[event_tag].slot;
  assign event_status_o = cpl_event ? verdict.status : StatusTimeout;
  assign event_done_o = !cpl_event || verdict.done;
  assign free = any_event && event_done_o;

  ep_id_pool #(.Count(Tags)) i_tags (
    .clk_i, .rst_ni,
    .id_valid_o(tag_valid_o), .id_o(tag_o), .take_i(tag_take_i),
    .free_i(free), .free_id_i(event_tag),
    .busy_o(busy), .used_o
  );

  assert property (@(posedge clk_i) disable iff (!rst_ni) !sent_i || busy[sent_tag_i]);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !cpl_valid_i || cpl_sop_i == !mid_q);

endmodule
