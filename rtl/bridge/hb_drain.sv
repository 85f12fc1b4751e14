// SPDX-License-Identifier: MIT OR Apache-2.0

/// Answers the IOMMU's request to drain (IOMMU §3.1.2, IOFENCE.C with PR or PW): notes which
/// translated requests and memory reads are held when the request comes, and acknowledges when all
/// of them are gone. A translated read that becomes a memory read stays noted under its tag.
///
/// Handshake kind: level request, one-cycle acknowledgement.
module hb_drain #(
  /// Translation slots.
  parameter int unsigned NumSlots = 32,
  /// Memory read tags.
  parameter int unsigned NumTags = 64
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Drain; held until acknowledged.
  input logic req_i,
  /// Drained, one cycle.
  output logic ack_o,

  /// Slots answered and not released.
  input logic [NumSlots-1:0] answered_i,
  /// Memory reads under way.
  input logic [NumTags-1:0] reading_i,
  /// A slot becomes a memory read.
  input logic move_valid_i,
  /// The slot.
  input logic [$clog2(NumSlots)-1:0] move_slot_i,
  /// The tag.
  input logic [$clog2(NumTags)-1:0] move_tag_i
);

  typedef enum logic [1:0] { StIdle, StNote, StWait, StLow } state_e;

  state_e state_q;
  logic [NumSlots-1:0] slots_q;
  logic [NumTags-1:0] tags_q;
  logic [NumTags-1:0] moved;

  // In the cycle of a move the slot is still answered; afterwards its tag is in use.
  always_comb begin
    moved = '0;
    if (move_valid_i && slots_q[move_slot_i]) moved[move_tag_i] = 1'b1;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      slots_q <= '0;
      tags_q <= '0;
    end else begin
      unique case (state_q)
        // An answer of the cycle before is a cycle on its way into the slots.
        StIdle: if (req_i) state_q <= StNote;
        StNote: begin
          state_q <= StWait;
          slots_q <= answered_i;
          tags_q <= reading_i;
          if (move_valid_i) tags_q[move_tag_i] <= 1'b1;
        end
        StWait: begin
          slots_q <= slots_q & answered_i;
          tags_q <= (tags_q & reading_i) | moved;
          if (ack_o) state_q <= StLow;
        end
        default: if (!req_i) state_q <= StIdle;
      endcase
    end
  end

  assign ack_o = state_q == StWait && slots_q == '0 && tags_q == '0;

  // The request is held until it is acknowledged.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(state_q == StNote || state_q == StWait) || req_i);

endmodule
