// SPDX-License-Identifier: MIT OR Apache-2.0

/// Follows PRP entries (NVM Express 1.4 §4.3) with memory pages of 4 KiB.
///
/// PRP entry 1 may begin anywhere in its page, at a DW. What lies beyond its page is at PRP entry 2
/// if that is one page at most; else PRP entry 2 points at a list, at a quad-word, and the last
/// entry of a page of the list points at the next page of the list when more entries remain. All
/// other entries begin their page.
///
/// Handshake kind: ready/valid on pieces and quad-words; `start_i` only when idle.
module ep_dma_prp (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Begin a descriptor.
  input logic start_i,
  /// PRP entry 1, length and place in local memory.
  input ep_pkg::extent_t extent_i,
  /// PRP entry 2.
  input logic [63:0] prp2_i,

  /// Fetch a stretch of the list.
  output logic fetch_o,
  /// Its address.
  output logic [63:3] fetch_addr_o,
  /// Its length in quad-words.
  output logic [28:0] fetch_words_o,
  /// An entry of the list, or the failure of its read.
  input logic word_valid_i,
  /// It is taken.
  output logic word_ready_o,
  /// The entry.
  input logic [63:0] word_i,
  /// Status of its read.
  input logic [2:0] word_status_i,

  /// A piece.
  output logic piece_valid_o,
  /// The piece is taken.
  input logic piece_ready_i,
  /// The piece.
  output ep_pkg::piece_t piece_o
);
  import ep_pkg::*;

  localparam len_t PageBytes = 23'd4096;

  typedef enum logic [2:0] {
    Idle,
    First,  // PRP entry 1
    Second,  // PRP entry 2 is the last page
    Fetch,  // `pointer_q` is a page of the list
    Entry  // entries of the stretch fetched
  } state_e;

  state_e state_q;
  extent_t rest_q;  // what is left, at the address of PRP entry 1 until that is done
  logic [63:0] pointer_q;
  logic [9:0] entries_q;  // left in the stretch
  logic chained_q;  // its last one points at more

  // The entry at hand.
  logic [63:0] entry;
  len_t room;
  len_t n;
  logic last;
  logic offset_ok;
  logic second_ok;
  len_t beyond;  // PRP entry 1
  logic link;

  always_comb begin
    unique case (state_q)
      First: entry = rest_q.addr;
      Second: entry = pointer_q;
      default: entry = word_i;
    endcase
  end

  assign room = PageBytes - len_t'(entry[11:0]);
  assign last = rest_q.len <= room;
  assign n = last ? rest_q.len : room;
  assign beyond = rest_q.len - n;
  assign second_ok = last || (beyond <= PageBytes ? pointer_q[11:0] == '0 : pointer_q[2:0] == '0);
  assign offset_ok = (state_q == First) ? entry[1:0] == '0 && second_ok : entry[11:0] == '0;
  assign link = state_q == Entry && chained_q && entries_q == 10'd1;

  // The stretch to fetch: entries wanted and slots left in the page of the list.
  logic [10:0] wanted;
  logic [9:0] slots;

  assign wanted = 11'((rest_q.len + PageBytes - len_t'(1)) >> 12);
  assign slots = 10'd512 - {1'b0, pointer_q[11:3]};
  assign fetch_o = state_q == Fetch;
  assign fetch_addr_o = pointer_q[63:3];
  assign fetch_words_o = (wanted < 11'(slots)) ? 29'(wanted) : 29'(slots);

  logic failed;

  assign failed = state_q == Entry && word_status_i != '0;

  always_comb begin
    piece_o = '0;
    piece_o.extent = '{local_dw: rest_q.local_dw, len: n, addr: entry};
    piece_o.move = !failed && offset_ok;
    piece_o.last = last || !piece_o.move;
    if (failed) begin
      piece_o.status = word_status_i;
      piece_o.code = ListReadFailed;
    end else if (!offset_ok) begin
      piece_o.code = ListOffset;
    end
  end

  // A good pointer to more of the list is no piece.
  logic follow;
  logic fire;

  assign follow = link && !failed && offset_ok;
  assign piece_valid_o = state_q inside {First, Second}
      || (state_q == Entry && word_valid_i && !follow);
  assign fire = piece_valid_o && piece_ready_i;
  assign word_ready_o = state_q == Entry && (follow || piece_ready_i);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Idle;
      rest_q <= '0;
      pointer_q <= '0;
      entries_q <= '0;
      chained_q <= 1'b0;
    end else begin
      if (start_i) begin
        state_q <= First;
        rest_q <= extent_i;
        pointer_q <= prp2_i;
      end
      if (fetch_o) begin
        state_q <= Entry;
        entries_q <= fetch_words_o[9:0];
        chained_q <= wanted > 11'(slots);
      end
      if (state_q == Entry && word_valid_i && word_ready_o) begin
        entries_q <= entries_q - 10'd1;
        if (follow) begin
          state_q <= Fetch;
          pointer_q <= word_i;
        end
      end
      if (fire) begin
        rest_q.len <= beyond;
        rest_q.local_dw <= rest_q.local_dw + mem_dw_t'(n >> 2);
        if (piece_o.last) state_q <= Idle;
        else if (state_q == First) state_q <= (beyond <= PageBytes) ? Second : Fetch;
      end
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !start_i || state_q == Idle);
  assert property (@(posedge clk_i) disable iff (!rst_ni) state_q == Idle || rest_q.len != '0);
  // A good list has an entry for each page, neither more nor fewer.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(fire && piece_o.move && state_q == Entry)
      || (entries_q != '0 && piece_o.last == (entries_q == 10'd1 && !chained_q)));

endmodule
