// SPDX-License-Identifier: MIT OR Apache-2.0

/// Merges the endpoint's three sources of TLPs: DMA requests (posted and non-posted), interrupt
/// messages (posted), completions.
///
/// What a source could have sent and did not is no earlier TLP, so there is no order to keep
/// between sources; nothing is buffered here, so nothing sent is overtaken. With Bus Master
/// Enable clear no request begins (PCIe 6.0 §7.5.1.1.3).
///
/// Handshake kind: class-ready at `tx` and `dma`; ready/valid at `msg` and `cpl`, whose valid does
/// not depend on ready. The valid of `dma` may depend on its ready.
module ep_tx_arb #(
  /// Beat type.
  parameter type beat_t = tlp_pkg::tlp_beat256_t
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Bus Master Enable.
  input logic bus_master_i,

  /// DMA requests.
  input beat_t dma_beat_i,
  /// Beat is valid.
  input logic dma_valid_i,
  /// Ready of each class.
  output tlp_pkg::tlp_ready_t dma_ready_o,

  /// Interrupt message, one beat.
  input beat_t msg_beat_i,
  /// Beat is valid.
  input logic msg_valid_i,
  /// Beat is taken.
  output logic msg_ready_o,

  /// Completions.
  input beat_t cpl_beat_i,
  /// Beat is valid.
  input logic cpl_valid_i,
  /// Beat is taken.
  output logic cpl_ready_o,

  /// Merged beats.
  output beat_t tx_beat_o,
  /// Beat is valid.
  output logic tx_valid_o,
  /// Ready of each class.
  input tlp_pkg::tlp_ready_t tx_ready_i
);
  import tlp_pkg::*;

  logic dma_mid_q;
  logic cpl_mid_q;
  logic dma_turn_q;  // DMA goes before the others

  logic msg_go;
  logic cpl_go;
  logic dma_blocked;

  assign msg_go = msg_valid_i && bus_master_i && tx_ready_i[ClassP] && !dma_mid_q && !cpl_mid_q;
  assign cpl_go = cpl_valid_i && tx_ready_i[ClassCpl] && !dma_mid_q;
  assign dma_blocked = cpl_mid_q || ((msg_go || cpl_go) && !dma_turn_q);

  always_comb begin
    dma_ready_o = '0;
    if (dma_mid_q) dma_ready_o = tx_ready_i;
    else if (bus_master_i && !dma_blocked) dma_ready_o = tx_ready_i;
  end

  always_comb begin
    msg_ready_o = 1'b0;
    cpl_ready_o = 1'b0;
    tx_beat_o = dma_beat_i;
    tx_valid_o = 1'b0;
    if (dma_valid_i && |dma_ready_o) begin
      tx_valid_o = 1'b1;
    end else if (msg_go) begin
      tx_beat_o = msg_beat_i;
      tx_valid_o = 1'b1;
      msg_ready_o = 1'b1;
    end else if (cpl_go) begin
      tx_beat_o = cpl_beat_i;
      tx_valid_o = 1'b1;
      cpl_ready_o = 1'b1;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      dma_mid_q <= 1'b0;
      cpl_mid_q <= 1'b0;
      dma_turn_q <= 1'b0;
    end else begin
      if (dma_valid_i && |dma_ready_o) begin
        dma_mid_q <= !dma_beat_i.eop;
        dma_turn_q <= 1'b0;
      end
      if (cpl_ready_o) cpl_mid_q <= !cpl_beat_i.eop;
      if (msg_ready_o || cpl_ready_o) dma_turn_q <= 1'b1;
    end
  end

  // One source in the midst of a TLP at most, and it alone proceeds.
  assert property (@(posedge clk_i) disable iff (!rst_ni) !(dma_mid_q && cpl_mid_q));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(dma_mid_q || cpl_mid_q) || !tx_valid_o || !tx_beat_o.sop);

endmodule
