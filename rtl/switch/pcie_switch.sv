// SPDX-License-Identifier: MIT OR Apache-2.0

/// PCI Express switch: one upstream port, `NumDn` downstream ports that are devices 0 to NumDn-1
/// on its secondary bus, each with a type 1 header; the downstream ports with ACS (PCIe 6.0 §6.12:
/// Source Validation, Request and Completion Redirect, Upstream Forwarding, Egress Control). Bit n
/// of an egress control vector is downstream port n.
///
/// Each ingress has a receive buffer with one queue a class and each egress a packet arbiter among
/// the queue heads routed to it, so the order of PCIe 6.0 §2.4.1 holds for each pair of ports.
/// A message that is broadcast from the root is forwarded if it has at most one beat.
///
/// Handshake kind: class-ready on all ports.
module pcie_switch #(
  /// Beat type of the ports.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Downstream ports.
  parameter int unsigned NumDn = 2,
  /// Maximum payload size in bytes.
  parameter int unsigned MaxPayload = 512
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// From above.
  input beat_t up_rx_beat_i,
  /// From above.
  input logic up_rx_valid_i,
  /// From above.
  output tlp_pkg::tlp_ready_t up_rx_ready_o,
  /// Upwards.
  output beat_t up_tx_beat_o,
  /// Upwards.
  output logic up_tx_valid_o,
  /// Upwards.
  input tlp_pkg::tlp_ready_t up_tx_ready_i,

  /// From below.
  input beat_t [NumDn-1:0] dn_rx_beat_i,
  /// From below.
  input logic [NumDn-1:0] dn_rx_valid_i,
  /// From below.
  output tlp_pkg::tlp_ready_t [NumDn-1:0] dn_rx_ready_o,
  /// Downwards.
  output beat_t [NumDn-1:0] dn_tx_beat_o,
  /// Downwards.
  output logic [NumDn-1:0] dn_tx_valid_o,
  /// Downwards.
  input tlp_pkg::tlp_ready_t [NumDn-1:0] dn_tx_ready_i,

  /// A TLP is inside.
  output logic busy_o
);

  import tlp_pkg::*;

  localparam int unsigned NumPorts = NumDn + 1;
  localparam int unsigned NumStreams = 3 * NumPorts;  // stream 3 * port + class
  localparam int unsigned PortW = $clog2(NumDn + 2);
  localparam int unsigned DataW = $bits(beat_t) - $bits(tlp_head_t) - 2;
  localparam int unsigned MaxBeats = (8 * MaxPayload + DataW - 1) / DataW;
  localparam int unsigned LocalSelW = $clog2(NumStreams);

  beat_t [NumPorts-1:0] rx_beat;
  logic [NumPorts-1:0] rx_valid;
  tlp_ready_t [NumPorts-1:0] rx_ready;
  beat_t [NumPorts-1:0] tx_beat;
  logic [NumPorts-1:0] tx_valid;
  tlp_ready_t [NumPorts-1:0] tx_ready;

  assign rx_beat = {dn_rx_beat_i, up_rx_beat_i};
  assign rx_valid = {dn_rx_valid_i, up_rx_valid_i};
  assign {dn_rx_ready_o, up_rx_ready_o} = rx_ready;
  assign {dn_tx_beat_o, up_tx_beat_o} = tx_beat;
  assign {dn_tx_valid_o, up_tx_valid_o} = tx_valid;
  assign tx_ready = {dn_tx_ready_i, up_tx_ready_i};

  port_pkg::port_cfg_t [NumDn:0] cfg;

  // Streams after routing.
  beat_t [NumStreams-1:0] st_beat;
  logic [NumStreams-1:0] st_valid;
  logic [NumStreams-1:0][PortW-1:0] st_dest;
  logic [NumStreams-1:0] st_cfg_hit;
  logic [NumStreams-1:0][PortW-1:0] st_fn;
  logic [NumStreams-1:0][2:0] st_status;
  logic [NumStreams-1:0] st_violation;
  logic [NumStreams-1:0] st_taken;  // by any egress
  logic [NumStreams-1:0] st_pop;

  for (genvar p = 0; p < NumPorts; p++) begin : gen_ingress
    beat_t [2:0] head;
    logic [2:0] valid;
    logic [2:0] in_order;
    logic p_done;

    assign p_done = st_pop[3*p] && head[ClassP].eop;

    tlp_ingress #(
      .beat_t(beat_t),
      .MaxBeats(MaxBeats)
    ) u_ingress (
      .clk_i,
      .rst_ni,
      .rx_beat_i(rx_beat[p]),
      .rx_valid_i(rx_valid[p]),
      .rx_ready_o(rx_ready[p]),
      .beat_o(head),
      .valid_o(valid),
      .in_order_o(in_order),
      // verilator lint_off PINCONNECTEMPTY
      .np_stamp_o(),  // posted TLPs are done as they leave: `in_order_o` is enough
      .take_i(st_pop[3*p +: 3]),
      .p_done_i(p_done),
      .p_done_cnt_o()  // likewise
      // verilator lint_on PINCONNECTEMPTY
    );

    for (genvar c = 0; c < 3; c++) begin : gen_class
      localparam int unsigned S = 3 * p + c;
      logic [PortW-1:0] dest;
      logic [PortW-1:0] dest_q;  // of the TLP under way
      logic broadcast;
      logic last_copy;
      tlp_hdr_t hdr;

      switch_route #(
        .NumDn(NumDn),
        .Port(p)
      ) u_route (
        .hdr_i(head[c].head.hdr),
        .cfg_i(cfg),
        .dest_o(dest),
        .broadcast_o(broadcast),
        .cfg_hit_o(st_cfg_hit[S]),
        .fn_o(st_fn[S]),
        .status_o(st_status[S]),
        .violation_o(st_violation[S]),
        .hdr_o(hdr)
      );

      always_comb begin
        st_beat[S] = head[c];
        st_beat[S].head.hdr = hdr;
      end

      assign st_valid[S] = valid[c] && in_order[c];
      assign st_pop[S] = st_taken[S] && last_copy;

      if (p == 0 && c == 0) begin : gen_broadcast
        logic [PortW-1:0] copy_q;  // downstream ports that have their copy
        logic copying;

        assign copying = broadcast && head[c].sop && head[c].eop;
        assign last_copy = !copying || copy_q == PortW'(NumDn - 1);
        assign st_dest[S] = !head[c].sop ? dest_q : copying ? copy_q + PortW'(1) : dest;

        always_ff @(posedge clk_i or negedge rst_ni) begin
          if (!rst_ni) copy_q <= '0;
          else if (st_taken[S]) copy_q <= last_copy ? '0 : copy_q + PortW'(1);
        end
      end else begin : gen_unicast
        logic unused;
        assign unused = broadcast;
        assign last_copy = 1'b1;
        assign st_dest[S] = head[c].sop ? dest : dest_q;
      end

      always_ff @(posedge clk_i or negedge rst_ni) begin
        if (!rst_ni) dest_q <= '0;
        else if (st_taken[S]) dest_q <= st_dest[S];
      end
    end
  end

  // The switch as a target.
  logic [NumStreams-1:0] local_take;
  beat_t local_beat;
  logic local_valid;
  tlp_ready_t local_ready;
  logic [LocalSelW-1:0] local_sel;
  beat_t cpl_beat;
  logic cpl_valid;
  logic [PortW-1:0] cpl_dest;
  logic [NumPorts-1:0] cpl_take;
  logic [NumStreams-1:0] to_local;
  logic [NumPorts-1:0][NumStreams-1:0] take;

  function automatic logic [NumStreams-1:0][1:0] stream_classes();
    logic [NumStreams-1:0][1:0] r;
    for (int unsigned s = 0; s < NumStreams; s++) r[s] = 2'(s % 3);
    return r;
  endfunction

  always_comb begin
    for (int unsigned s = 0; s < NumStreams; s++) begin
      to_local[s] = st_valid[s] && st_dest[s] == PortW'(NumDn + 1);
    end
  end

  tlp_arb #(
    .beat_t(beat_t),
    .NumIn(NumStreams),
    .Class(stream_classes())
  ) u_local_arb (
    .clk_i,
    .rst_ni,
    .beat_i(st_beat),
    .valid_i(to_local),
    .take_o(local_take),
    .tx_beat_o(local_beat),
    .tx_valid_o(local_valid),
    .tx_ready_i(local_ready),
    .sel_o(local_sel)
  );

  switch_local #(
    .beat_t(beat_t),
    .NumDn(NumDn)
  ) u_local (
    .clk_i,
    .rst_ni,
    .rx_beat_i(local_beat),
    .rx_valid_i(local_valid),
    .rx_ready_o(local_ready),
    .src_i(PortW'(local_sel / LocalSelW'(3))),
    .cfg_hit_i(st_cfg_hit[local_sel]),
    .fn_i(st_fn[local_sel]),
    .status_i(st_status[local_sel]),
    .violation_i(st_violation[local_sel]),
    .cpl_beat_o(cpl_beat),
    .cpl_valid_o(cpl_valid),
    .cpl_take_i(|cpl_take),
    .cpl_dest_o(cpl_dest),
    .cfg_o(cfg)
  );

  for (genvar e = 0; e < NumPorts; e++) begin : gen_egress
    logic [NumStreams-1:0] valid;

    always_comb begin
      for (int unsigned s = 0; s < NumStreams; s++) begin
        valid[s] = st_valid[s] && st_dest[s] == PortW'(e);
      end
    end

    tlp_arb #(
      .beat_t(beat_t),
      .NumIn(NumStreams + 1),
      .Class({2'(ClassCpl), stream_classes()})
    ) u_arb (
      .clk_i,
      .rst_ni,
      .beat_i({cpl_beat, st_beat}),
      .valid_i({cpl_valid && cpl_dest == PortW'(e), valid}),
      .take_o({cpl_take[e], take[e]}),
      .tx_beat_o(tx_beat[e]),
      .tx_valid_o(tx_valid[e]),
      .tx_ready_i(tx_ready[e]),
      // verilator lint_off PINCONNECTEMPTY
      .sel_o()  // an egress does not ask where its TLP is from
      // verilator lint_on PINCONNECTEMPTY
    );
  end

  always_comb begin
    st_taken = local_take;
    for (int unsigned e = 0; e < NumPorts; e++) st_taken |= take[e];
  end

  assign busy_o = st_valid != '0 || cpl_valid;

endmodule
