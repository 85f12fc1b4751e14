// SPDX-License-Identifier: MIT OR Apache-2.0

/// Descriptors under way: counts each one's outstanding requests, and when the last is done makes
/// the completion record and the interrupt, in order of completion.
///
/// At most one request ends in a cycle, so at most one descriptor completes: ends of writes wait
/// for a cycle in which no read reports, and the end of a descriptor without a request for one in
/// which no request ends.
///
/// Handshake kind: ready/valid on records and ends; the rest is valid only.
module ep_dma_track #(
  /// Writes issued that may be yet to leave.
  parameter int unsigned Writes = 64
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A slot is free.
  output logic slot_valid_o,
  /// The slot.
  output ep_pkg::slot_t slot_o,
  /// A descriptor takes the slot.
  input logic slot_take_i,
  /// What is to be done when it is complete.
  input ep_pkg::info_t info_i,

  /// There is room to note a write.
  output logic write_room_o,
  /// A request was issued.
  input logic issue_i,
  /// Of this slot.
  input ep_pkg::slot_t issue_slot_i,
  /// It is a write.
  input logic issue_write_i,
  /// It is the last of its descriptor.
  input logic issue_last_i,

  /// The oldest write has left.
  input logic left_i,
  /// Something happened to a read.
  input logic event_i,
  /// Its slot.
  input ep_pkg::slot_t event_slot_i,
  /// Status to be merged.
  input logic [2:0] event_status_i,
  /// The read has ended.
  input logic event_done_i,

  /// A descriptor ends without a further request.
  input logic end_valid_i,
  /// The end is taken.
  output logic end_ready_o,
  /// The descriptor.
  input ep_pkg::slot_t end_slot_i,
  /// Status to be merged.
  input logic [2:0] end_status_i,
  /// Why its list ended it.
  input ep_pkg::list_code_e end_code_i,

  /// A completion record waits.
  output logic record_valid_o,
  /// The record is taken.
  input logic record_ready_i,
  /// The record.
  output ep_pkg::record_t record_o,
  /// Records waiting.
  output logic [6:0] records_o,
  /// A descriptor is complete.
  output logic retire_o,
  /// An interrupt, together with `retire_o`.
  output logic irq_valid_o,
  /// Its vector.
  output ep_pkg::vector_t irq_vector_o
);
  import ep_pkg::*;

  typedef logic [7:0] count_t;

  info_t info_q[Slots];
  count_t [Slots-1:0] open_q;
  logic [Slots-1:0] issued_q;
  logic [Slots-1:0][2:0] status_q;
  list_code_e [Slots-1:0] code_q;
  logic [Slots-1:0] busy;

  always_ff @(posedge clk_i) begin
    if (slot_take_i) info_q[slot_o] <= info_i;
  end

  // Writes in the order of issue, and how many have left unaccounted.
  slot_t write_slot;
  logic write_valid;
  logic write_end;
  logic [$clog2(Writes+1)-1:0] writes;
  logic [$clog2(Writes+1)-1:0] left_q;

  assign write_end = left_q != '0 && !event_i;

  fifo #(.T(slot_t), .Depth(Writes)) i_writes (
    .clk_i, .rst_ni,
    .wvalid_i(issue_i && issue_write_i), .wready_o(write_room_o), .wdata_i(issue_slot_i),
    .rvalid_o(write_valid), .rready_i(write_end), .rdata_o(write_slot),
    .depth_o(writes)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) left_q <= '0;
    else left_q <= left_q + $bits(left_q)'(left_i) - $bits(left_q)'(write_end);
  end

  // One request ends, or a descriptor without one.
  logic close;
  slot_t close_slot;
  logic ended;
  logic done;

  assign close = write_end || (event_i && event_done_i);
  assign close_slot = event_i ? event_slot_i : write_slot;
  assign end_ready_o = !close;
  assign ended = end_valid_i && end_ready_o;
  assign done = ended ? open_q[end_slot_i] == '0
      : close && issued_q[close_slot] && open_q[close_slot] == count_t'(1);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      open_q <= '0;
      issued_q <= '0;
      status_q <= '0;
      code_q <= '0;
    end else begin
      for (int unsigned s = 0; s < Slots; s++) begin
        open_q[s] <= open_q[s] + count_t'(issue_i && issue_slot_i == slot_t'(s))
            - count_t'(close && close_slot == slot_t'(s));
      end
      if (issue_i && issue_last_i) issued_q[issue_slot_i] <= 1'b1;
      if (event_i && event_status_i > status_q[event_slot_i]) begin
        status_q[event_slot_i] <= event_status_i;
      end
      if (ended) begin
        issued_q[end_slot_i] <= 1'b1;
        code_q[end_slot_i] <= end_code_i;
        if (end_status_i > status_q[end_slot_i]) status_q[end_slot_i] <= end_status_i;
      end
      if (slot_take_i) begin
        code_q[slot_o] <= ListOk;
        issued_q[slot_o] <= 1'b0;
        status_q[slot_o] <= '0;
      end
    end
  end

  // Completed descriptors become records.
  slot_t done_slot;
  logic done_room;
  logic done_valid;
  logic record_room;
  logic [$clog2(Slots+1)-1:0] dones;
  logic [5:0] used;

  fifo #(.T(slot_t), .Depth(Slots)) i_done (
    .clk_i, .rst_ni,
    .wvalid_i(done), .wready_o(done_room), .wdata_i(ended ? end_slot_i : close_slot),
    .rvalid_o(done_valid), .rready_i(record_room), .rdata_o(done_slot),
    .depth_o(dones)
  );

  assign retire_o = done_valid && record_room;
  assign irq_valid_o = retire_o && info_q[done_slot].irq;
  assign irq_vector_o = info_q[done_slot].irq_vector;

  fifo #(.T(record_t), .Depth(Records)) i_records (
    .clk_i, .rst_ni,
    .wvalid_i(done_valid), .wready_o(record_room),
    .wdata_i('{code: code_q[done_slot], status: status_q[done_slot], id: info_q[done_slot].id}),
    .rvalid_o(record_valid_o), .rready_i(record_ready_i), .rdata_o(record_o),
    .depth_o(records_o)
  );

  ep_id_pool #(.Count(Slots)) i_slots (
    .clk_i, .rst_ni,
    .id_valid_o(slot_valid_o), .id_o(slot_o), .take_i(slot_take_i),
    .free_i(retire_o), .free_id_i(done_slot),
    .busy_o(busy), .used_o(used)
  );

  assert property (@(posedge clk_i) disable iff (!rst_ni) !done || done_room);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !write_end || write_valid);
  assert property (@(posedge clk_i) disable iff (!rst_ni) left_q <= writes);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !close || (busy[close_slot] && open_q[close_slot] != '0));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !ended || (busy[end_slot_i] && !issued_q[end_slot_i]));
  assert property (@(posedge clk_i) disable iff (!rst_ni) 32'(dones) <= 32'(used));

endmodule
