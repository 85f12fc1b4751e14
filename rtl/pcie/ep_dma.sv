// SPDX-License-Identifier: MIT OR Apache-2.0

/// DMA engine: queue, lists, splitter, read tags, payload fetch, and completion records.
///
/// Requests leave in the order of issue, but a posted write passes reads that the link does not
/// take (PCIe 6.0 §2.4.1).
///
/// Handshake kind: descriptors and records ready/valid, `tx` class-ready, completions valid only.
module ep_dma #(
  /// Beat type.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Completion timeout in cycles from the request's leaving.
  parameter int unsigned CplTimeout = 1 << 20,
  /// Beat width in bits, as in `beat_t`.
  parameter int unsigned DataW = $bits(beat_t) - $bits(tlp_pkg::tlp_head_t) - 2
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A descriptor is pushed.
  input logic desc_valid_i,
  /// There is room.
  output logic desc_ready_o,
  /// The descriptor.
  input ep_pkg::desc_t desc_i,

  /// A completion record waits.
  output logic record_valid_o,
  /// The record is taken.
  input logic record_ready_i,
  /// The record.
  output ep_pkg::record_t record_o,
  /// Records waiting.
  output logic [7:0] records_o,
  /// Read tags in use.
  output logic [7:0] tags_o,
  /// A descriptor is complete.
  output logic retire_o,
  /// An interrupt.
  output logic irq_valid_o,
  /// Its vector.
  output ep_pkg::vector_t irq_vector_o,
  /// A completion was unexpected or malformed.
  output logic unexpected_o,

  /// The function's ID.
  input logic [15:0] bdf_i,
  /// Max_Payload_Size as encoded in Device Control.
  input logic [2:0] mps_i,
  /// Max_Read_Request_Size as encoded in Device Control.
  input logic [2:0] mrrs_i,

  /// A beat of a received completion.
  input logic cpl_valid_i,
  /// It is the first.
  input logic cpl_sop_i,
  /// It is the last.
  input logic cpl_eop_i,
  /// Header, with the first beat.
  input tlp_pkg::tlp_hdr_t cpl_hdr_i,
  /// Payload.
  input logic [DataW-1:0] cpl_data_i,
  /// Where its payload goes in local memory, with the first beat.
  output ep_pkg::sink_job_t cpl_sink_o,

  /// Memory read request.
  output logic rd_valid_o,
  /// The request is taken.
  input logic rd_ready_i,
  /// DW address of lane 0.
  output ep_pkg::mem_dw_t rd_dw_o,
  /// Data, one cycle after the handshake.
  input logic [DataW-1:0] rd_data_i,

  /// Requests out.
  output beat_t tx_beat_o,
  /// Beat out is valid.
  output logic tx_valid_o,
  /// Ready of each class.
  input tlp_pkg::tlp_ready_t tx_ready_i
);
  import tlp_pkg::*;
  import ep_pkg::*;

  // Descriptors.
  logic desc_valid;
  logic desc_ready;
  desc_t desc;
  logic slot_valid;
  slot_t slot;
  logic desc_take;
  logic [$clog2(QueueDepth+1)-1:0] queued;

  assign desc_take = desc_valid && desc_ready;

  fifo #(.T(desc_t), .Depth(QueueDepth)) i_queue (
    .clk_i, .rst_ni,
    .wvalid_i(desc_valid_i), .wready_o(desc_ready_o), .wdata_i(desc_i),
    .rvalid_o(desc_valid), .rready_i(desc_ready), .rdata_o(desc),
    .depth_o(queued)
  );

  // Lists.
  logic tag_valid;
  tag_t tag;
  logic list_valid;
  logic list_ready;
  src_job_t list_job;
  owner_t list_owner;
  progress_t list_progress;
  logic list_event;
  block_t list_block;
  sink_job_t list_sink;
  logic [2:0] event_status;
  logic event_done;
  logic work_valid;
  logic work_ready;
  work_t work;

  ep_dma_list #(.DataW(DataW)) i_list (
    .clk_i, .rst_ni,
    .desc_valid_i(desc_valid), .desc_ready_o(desc_ready), .desc_i(desc.transfer),
    .slot_valid_i(slot_valid), .slot_i(slot),
    .bdf_i, .tag_i(tag),
    .req_valid_o(list_valid), .req_ready_i(list_ready), .req_job_o(list_job),
    .req_owner_o(list_owner), .req_progress_o(list_progress),
    .event_i(list_event), .event_block_i(list_block), .event_status_i(event_status),
    .event_done_i(event_done),
    .cpl_valid_i, .cpl_sop_i, .cpl_sink_i(list_sink), .cpl_data_i,
    .work_valid_o(work_valid), .work_ready_i(work_ready), .work_o(work)
  );

  // Requests for data.
  logic data_valid;
  logic data_ready;
  src_job_t data_job;
  logic data_take;
  owner_t data_owner;
  progress_t data_progress;
  logic write_room;
  logic issue;
  slot_t issue_slot;
  logic issue_write;
  logic issue_last;
  logic end_valid;
  logic end_ready;
  slot_t end_slot;
  logic [2:0] end_status;
  list_code_e end_code;

  ep_dma_issue i_issue (
    .clk_i, .rst_ni,
    .work_valid_i(work_valid), .work_ready_o(work_ready), .work_i(work),
    .tag_valid_i(tag_valid), .tag_i(tag), .tag_take_o(data_take),
    .owner_o(data_owner), .progress_o(data_progress),
    .bdf_i, .mps_i, .mrrs_i,
    .job_valid_o(data_valid), .job_ready_i(data_ready), .job_o(data_job),
    .write_room_i(write_room), .issue_o(issue), .issue_slot_o(issue_slot),
    .issue_write_o(issue_write), .issue_last_o(issue_last),
    .end_valid_o(end_valid), .end_ready_i(end_ready), .end_slot_o(end_slot),
    .end_status_o(end_status), .end_code_o(end_code)
  );

  // Reads of lists go first: they are few, and data waits for them.
  logic list_go;
  logic job_valid;
  logic job_ready;
  src_job_t job;
  logic tag_take;
  owner_t owner;
  progress_t progress;

  assign list_go = list_valid && tag_valid;
  assign list_ready = list_go && job_ready;
  assign data_ready = !list_go && job_ready;
  assign job_valid = list_go || data_valid;
  assign job = list_go ? list_job : data_job;
  assign tag_take = list_ready || data_take;
  assign owner = list_go ? list_owner : data_owner;
  assign progress = list_go ? list_progress : data_progress;

  beat_t src_beat;
  logic src_valid;
  tlp_ready_t src_ready;

  ep_tlp_source #(.beat_t(beat_t)) i_source (
    .clk_i, .rst_ni,
    .job_valid_i(job_valid), .job_ready_o(job_ready), .job_i(job),
    .rd_valid_o, .rd_ready_i, .rd_dw_o, .rd_data_i,
    .tx_beat_o(src_beat), .tx_valid_o(src_valid),
    .tx_ready_i(src_ready[hdr_class(src_beat.head.hdr)])
  );

  // Depth of two maximum TLPs of each class is the default; no completion goes this way.
  tlp_class_fifo #(.beat_t(beat_t), .CplDepth(1)) i_requests (
    .clk_i, .rst_ni,
    .rx_beat_i(src_beat), .rx_valid_i(src_valid), .rx_ready_o(src_ready),
    .tx_beat_o, .tx_valid_o, .tx_ready_i
  );

  // What leaves.
  logic out_mid_q;
  tlp_class_e out_class;
  tlp_class_e out_class_q;
  logic out_fire;
  logic left;
  logic sent;

  assign out_class = out_mid_q ? out_class_q : hdr_class(tx_beat_o.head.hdr);
  assign out_fire = tx_valid_o && tx_ready_i[out_class];
  assign left = out_fire && tx_beat_o.eop && out_class == ClassP;
  assign sent = out_fire && out_class == ClassNp;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      out_mid_q <= 1'b0;
      out_class_q <= ClassP;
    end else if (out_fire) begin
      out_mid_q <= !tx_beat_o.eop;
      out_class_q <= out_class;
    end
  end

  // Ends of requests and of descriptors.
  logic event_valid;
  slot_t event_slot;
  logic [6:0] records;
  logic [6:0] tags_used;

  ep_dma_tags #(.CplTimeout(CplTimeout)) i_tags (
    .clk_i, .rst_ni,
    .tag_valid_o(tag_valid), .tag_o(tag), .tag_take_i(tag_take),
    .owner_i(owner), .progress_i(progress), .used_o(tags_used),
    .sent_i(sent), .sent_tag_i(tag_t'(hdr_tag(tx_beat_o.head.hdr))),
    .cpl_valid_i, .cpl_sop_i, .cpl_eop_i, .cpl_hdr_i, .sink_o(cpl_sink_o),
    .list_sink_o(list_sink),
    .event_o(event_valid), .list_event_o(list_event), .list_block_o(list_block),
    .event_slot_o(event_slot), .event_status_o(event_status),
    .event_done_o(event_done), .unexpected_o
  );

  ep_dma_track i_track (
    .clk_i, .rst_ni,
    .slot_valid_o(slot_valid), .slot_o(slot), .slot_take_i(desc_take),
    .info_i(desc.info),
    .write_room_o(write_room), .issue_i(issue), .issue_slot_i(issue_slot),
    .issue_write_i(issue_write), .issue_last_i(issue_last),
    .left_i(left),
    .event_i(event_valid), .event_slot_i(event_slot), .event_status_i(event_status),
    .event_done_i(event_done),
    .end_valid_i(end_valid), .end_ready_o(end_ready), .end_slot_i(end_slot),
    .end_status_i(end_status), .end_code_i(end_code),
    .record_valid_o, .record_ready_i, .record_o, .records_o(records),
    .retire_o, .irq_valid_o, .irq_vector_o
  );

  assign records_o = 8'(records);
  assign tags_o = 8'(tags_used);

  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !src_valid || hdr_class(src_beat.head.hdr) != ClassCpl);
  assert property (@(posedge clk_i) disable iff (!rst_ni) queued <= 6'(QueueDepth));

endmodule
