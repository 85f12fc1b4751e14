// SPDX-License-Identifier: MIT OR Apache-2.0

/// MSI-X table at BAR0 0x2000, pending bits at 0x3000, and the messages (PCIe 6.0 §6.1.4).
///
/// An interrupt sets its vector's pending bit, the message clears it; interrupts of one vector
/// that come before its message leaves share the message. While MSI-X is disabled interrupts are
/// lost.
///
/// Handshake kind: register ports as in `ep_regs`; `irq_valid_i` is always taken; the message
/// is one beat of the posted class and may be withdrawn by masking.
module ep_msix #(
  /// Beat type.
  parameter type beat_t = tlp_pkg::tlp_beat256_t
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Write a register.
  input logic wr_valid_i,
  /// Register, in units of 8 bytes.
  input logic [13:3] wr_addr_i,
  /// Halves written.
  input logic [1:0] wr_en_i,
  /// Data.
  input logic [63:0] wr_data_i,
  /// Register read, in units of 8 bytes.
  input logic [13:3] rd_addr_i,
  /// Contents; 0 at addresses of other blocks.
  output logic [63:0] rd_data_o,

  /// MSI-X Enable.
  input logic enable_i,
  /// Function Mask.
  input logic mask_i,
  /// Requester ID.
  input logic [15:0] bdf_i,

  /// An interrupt.
  input logic irq_valid_i,
  /// Its vector.
  input ep_pkg::vector_t irq_vector_i,

  /// Message.
  output beat_t tx_beat_o,
  /// Message is valid.
  output logic tx_valid_o,
  /// Message is taken.
  input logic tx_ready_i
);
  import tlp_pkg::*;
  import ep_pkg::*;

  logic [Vectors-1:0][63:0] addr_q;
  logic [Vectors-1:0][31:0] data_q;
  logic [Vectors-1:0] mask_q;
  logic [Vectors-1:0] pending_q;
  logic [Vectors-1:0] pending_d;

  // Table entry of 16 bytes: address; data and vector control.
  logic wr_table;
  logic rd_table;
  vector_t wr_entry;
  vector_t rd_entry;

  assign wr_table = wr_valid_i && wr_addr_i[13:7] == 7'h40;
  assign rd_table = rd_addr_i[13:7] == 7'h40;
  assign wr_entry = wr_addr_i[6:4];
  assign rd_entry = rd_addr_i[6:4];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      addr_q <= '0;
      data_q <= '0;
      mask_q <= '1;
    end else if (wr_table) begin
      if (!wr_addr_i[3]) begin
        if (wr_en_i[0]) addr_q[wr_entry][31:0] <= {wr_data_i[31:2], 2'b00};
        if (wr_en_i[1]) addr_q[wr_entry][63:32] <= wr_data_i[63:32];
      end else begin
        if (wr_en_i[0]) data_q[wr_entry] <= wr_data_i[31:0];
        if (wr_en_i[1]) mask_q[wr_entry] <= wr_data_i[32];
      end
    end
  end

  always_comb begin
    rd_data_o = '0;
    if (rd_table) begin
      rd_data_o = rd_addr_i[3] ? {31'd0, mask_q[rd_entry], data_q[rd_entry]} : addr_q[rd_entry];
    end else if (rd_addr_i == 11'(14'h3000 >> 3)) begin
      rd_data_o = 64'(pending_q);
    end
  end

  // The lowest vector that may be sent.
  logic [Vectors-1:0] sendable;
  vector_t pick;

  assign sendable = (enable_i && !mask_i) ? pending_q & ~mask_q : '0;

  always_comb begin
    pick = '0;
    for (int unsigned v = Vectors; v > 0; v--) begin
      if (sendable[v-1]) pick = vector_t'(v - 1);
    end
  end

  always_comb begin
    pending_d = pending_q;
    if (tx_valid_o && tx_ready_i) pending_d[pick] = 1'b0;
    if (irq_valid_i) pending_d[irq_vector_i] = 1'b1;
    if (!enable_i) pending_d = '0;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) pending_q <= '0;
    else pending_q <= pending_d;
  end

  always_comb begin
    tx_beat_o = '0;
    tx_beat_o.sop = 1'b1;
    tx_beat_o.eop = 1'b1;
    tx_beat_o.head.hdr = mk_mem_hdr(1'b1, addr_q[pick], 11'd1, 4'hf, 4'h0, bdf_i, '0, '0,
                                    AtUntranslated, '0);
    tx_beat_o.data[31:0] = data_q[pick];
  end

  assign tx_valid_o = |sendable;

  assert property (@(posedge clk_i) disable iff (!rst_ni) !tx_valid_o || sendable[pick]);

endmodule
