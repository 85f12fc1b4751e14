// SPDX-License-Identifier: MIT OR Apache-2.0

/// The machine that is simulated: host bridge with IOMMU; a switch with endpoints 0 and 1 below
/// root port 0; endpoint 2 below root port 1. Every TLP can be seen at the taps
/// (`docs/rtl-ports.md`).
///
/// Handshake kinds: those of `host_bridge`; taps are valid only.
module sim_top
  import tlp_pkg::*;
  import sim_top_pkg::*;
(
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Strap: PMA table.
  input mem_pkg::pma_region_t [7:0] pma_i,
  /// Strap: bus address = CPU physical address - offset inside `PmaPcie` regions.
  input logic [63:0] bus_offset_i,
  /// Strap: No Snoop is honoured.
  input logic ns_honour_i,
  /// Strap: PMA of `PmaPcie` regions: 0 I/O, 1 main memory, cacheable unless the page says
  /// otherwise.
  input logic aperture_wb_i,
  /// Strap: there is an IOMMU.
  input logic iommu_enable_i,

  /// CPU port: a request.
  input logic cpu_req_valid_i,
  /// It is taken.
  output logic cpu_req_ready_o,
  /// 1 write.
  input logic cpu_req_write_i,
  /// Configuration access.
  input logic cpu_req_cfg_i,
  /// Byte address, or ECAM offset.
  input logic [63:0] cpu_req_addr_i,
  /// Byte enables of the 8 bytes around the address.
  input logic [7:0] cpu_req_be_i,
  /// Data of a write.
  input logic [63:0] cpu_req_wdata_i,
  /// CPU port: the response, one cycle.
  output logic cpu_rsp_valid_o,
  /// Data of a read.
  output logic [63:0] cpu_rsp_rdata_o,
  /// 0 done, 1 UR, 2 CA, 3 timeout.
  output logic [1:0] cpu_rsp_status_o,

  /// Memory port: request beat.
  output logic mem_req_valid_o,
  /// It is taken.
  input logic mem_req_ready_i,
  /// The request.
  output mem_pkg::mem_req_t mem_req_o,
  /// First beat.
  output logic mem_req_sop_o,
  /// Last beat.
  output logic mem_req_eop_o,
  /// Data of a write.
  output logic [mem_pkg::MemDataW-1:0] mem_req_wdata_o,
  /// Memory port: response beat.
  input logic mem_rsp_valid_i,
  /// It is taken.
  output logic mem_rsp_ready_o,
  /// The beat.
  input mem_pkg::mem_rsp_t mem_rsp_i,

  /// Tap: beats leaving the endpoints.
  output tlp_beat256_t [NumEp-1:0] ep_tx_beat_o,
  /// Tap: see `ep_tx_beat_o`.
  output logic [NumEp-1:0] ep_tx_fire_o,
  /// Tap: beats arriving at the endpoints.
  output tlp_beat256_t [NumEp-1:0] ep_rx_beat_o,
  /// Tap: see `ep_rx_beat_o`.
  output logic [NumEp-1:0] ep_rx_fire_o,
  /// Tap: TLPs entering the root ports from below.
  output tlp_head_t [NumRp-1:0] rp_rx_head_o,
  /// Tap: see `rp_rx_head_o`.
  output logic [NumRp-1:0] rp_rx_fire_o,
  /// Tap: TLPs leaving the root ports downwards.
  output tlp_head_t [NumRp-1:0] rp_tx_head_o,
  /// Tap: see `rp_tx_head_o`.
  output logic [NumRp-1:0] rp_tx_fire_o,
  /// Tap: a request leaves the translation stage.
  output logic tr_fire_o,
  /// Tap: the request and what became of it.
  output tr_tap_t tr_o,

  /// A TLP, a translation, a CPU or a memory transaction is under way.
  output logic activity_o
);

  // Links, named by the side that sends: `ep_tx` from the endpoints, `rp_tx` from the root ports.
  tlp_beat256_t [NumEp-1:0] ep_tx_beat;
  logic [NumEp-1:0] ep_tx_valid;
  tlp_ready_t [NumEp-1:0] ep_tx_ready;
  tlp_beat256_t [NumEp-1:0] ep_rx_beat;
  logic [NumEp-1:0] ep_rx_valid;
  tlp_ready_t [NumEp-1:0] ep_rx_ready;
  tlp_beat256_t [NumRp-1:0] rp_rx_beat;
  logic [NumRp-1:0] rp_rx_valid;
  tlp_ready_t [NumRp-1:0] rp_rx_ready;
  tlp_beat256_t [NumRp-1:0] rp_tx_beat;
  logic [NumRp-1:0] rp_tx_valid;
  tlp_ready_t [NumRp-1:0] rp_tx_ready;

  logic bridge_busy;
  logic switch_busy;
  logic [0:0] tap_port;
  tlp_head_t tap_head;
  iommu_pkg::tr_rsp_t tap_rsp;
  bridge_pkg::resolved_t tap_res;

  host_bridge #(
    .beat_t(tlp_beat256_t),
    .NumRp(NumRp)
  ) u_bridge (
    .clk_i,
    .rst_ni,
    .pma_i,
    .bus_offset_i,
    .ns_honour_i,
    .aperture_wb_i,
    .iommu_enable_i,
    .rp_rx_beat_i(rp_rx_beat),
    .rp_rx_valid_i(rp_rx_valid),
    .rp_rx_ready_o(rp_rx_ready),
    .rp_tx_beat_o(rp_tx_beat),
    .rp_tx_valid_o(rp_tx_valid),
    .rp_tx_ready_i(rp_tx_ready),
    .cpu_req_valid_i,
    .cpu_req_ready_o,
    .cpu_req_write_i,
    .cpu_req_cfg_i,
    .cpu_req_addr_i,
    .cpu_req_be_i,
    .cpu_req_wdata_i,
    .cpu_rsp_valid_o,
    .cpu_rsp_rdata_o,
    .cpu_rsp_status_o,
    .mem_req_valid_o,
    .mem_req_ready_i,
    .mem_req_o,
    .mem_req_sop_o,
    .mem_req_eop_o,
    .mem_req_wdata_o,
    .mem_rsp_valid_i,
    .mem_rsp_ready_o,
    .mem_rsp_i,
    .tap_valid_o(tr_fire_o),
    .tap_port_o(tap_port),
    .tap_head_o(tap_head),
    .tap_rsp_o(tap_rsp),
    .tap_res_o(tap_res),
    .busy_o(bridge_busy)
  );

  pcie_switch #(
    .beat_t(tlp_beat256_t),
    .NumDn(2)
  ) u_switch (
    .clk_i,
    .rst_ni,
    .up_rx_beat_i(rp_tx_beat[0]),
    .up_rx_valid_i(rp_tx_valid[0]),
    .up_rx_ready_o(rp_tx_ready[0]),
    .up_tx_beat_o(rp_rx_beat[0]),
    .up_tx_valid_o(rp_rx_valid[0]),
    .up_tx_ready_i(rp_rx_ready[0]),
    .dn_rx_beat_i(ep_tx_beat[1:0]),
    .dn_rx_valid_i(ep_tx_valid[1:0]),
    .dn_rx_ready_o(ep_tx_ready[1:0]),
    .dn_tx_beat_o(ep_rx_beat[1:0]),
    .dn_tx_valid_o(ep_rx_valid[1:0]),
    .dn_tx_ready_i(ep_rx_ready[1:0]),
    .busy_o(switch_busy)
  );

  assign ep_rx_beat[2] = rp_tx_beat[1];
  assign ep_rx_valid[2] = rp_tx_valid[1];
  assign rp_tx_ready[1] = ep_rx_ready[2];
  assign rp_rx_beat[1] = ep_tx_beat[2];
  assign rp_rx_valid[1] = ep_tx_valid[2];
  assign ep_tx_ready[2] = rp_rx_ready[1];

  for (genvar n = 0; n < NumEp; n++) begin : gen_ep
    endpoint #(
      .beat_t(tlp_beat256_t)
    ) u_endpoint (
      .clk_i,
      .rst_ni,
      .rx_beat_i(ep_rx_beat[n]),
      .rx_valid_i(ep_rx_valid[n]),
      .rx_ready_o(ep_rx_ready[n]),
      .tx_beat_o(ep_tx_beat[n]),
      .tx_valid_o(ep_tx_valid[n]),
      .tx_ready_i(ep_tx_ready[n])
    );
  end

  // Taps. The class of a TLP is in its first beat; the later ones go with it.
  logic [NumEp-1:0] ep_tx_mid;
  logic [NumEp-1:0] ep_rx_mid;

  for (genvar n = 0; n < NumEp; n++) begin : gen_ep_tap
    link_tap u_tx (
      .clk_i,
      .rst_ni,
      .beat_i(ep_tx_beat[n]),
      .valid_i(ep_tx_valid[n]),
      .ready_i(ep_tx_ready[n]),
      .fire_o(ep_tx_fire_o[n]),
      .mid_o(ep_tx_mid[n])
    );
    link_tap u_rx (
      .clk_i,
      .rst_ni,
      .beat_i(ep_rx_beat[n]),
      .valid_i(ep_rx_valid[n]),
      .ready_i(ep_rx_ready[n]),
      .fire_o(ep_rx_fire_o[n]),
      .mid_o(ep_rx_mid[n])
    );
  end
  assign ep_tx_beat_o = ep_tx_beat;
  assign ep_rx_beat_o = ep_rx_beat;

  logic [NumRp-1:0] rp_rx_fire;
  logic [NumRp-1:0] rp_tx_fire;
  logic [NumRp-1:0] rp_rx_mid;
  logic [NumRp-1:0] rp_tx_mid;

  for (genvar p = 0; p < NumRp; p++) begin : gen_rp_tap
    link_tap u_rx (
      .clk_i,
      .rst_ni,
      .beat_i(rp_rx_beat[p]),
      .valid_i(rp_rx_valid[p]),
      .ready_i(rp_rx_ready[p]),
      .fire_o(rp_rx_fire[p]),
      .mid_o(rp_rx_mid[p])
    );
    link_tap u_tx (
      .clk_i,
      .rst_ni,
      .beat_i(rp_tx_beat[p]),
      .valid_i(rp_tx_valid[p]),
      .ready_i(rp_tx_ready[p]),
      .fire_o(rp_tx_fire[p]),
      .mid_o(rp_tx_mid[p])
    );
    assign rp_rx_head_o[p] = rp_rx_beat[p].head;
    assign rp_tx_head_o[p] = rp_tx_beat[p].head;
    assign rp_rx_fire_o[p] = rp_rx_fire[p] && rp_rx_beat[p].sop;
    assign rp_tx_fire_o[p] = rp_tx_fire[p] && rp_tx_beat[p].sop;
  end

  logic unused;
  assign unused = ^{tap_rsp, tap_res.cpl_status, tap_res.addr};  // not in the tap

  assign tr_o = '{
    rsvd: '0,
    port: tap_port,
    status: tap_rsp.status,
    cause: tap_rsp.cause,
    pbmt: tap_rsp.pbmt,
    attr: tap_res.attr,
    dest: tap_res.dest,
    spa: tap_rsp.spa,
    head: tap_head
  };

  assign activity_o = bridge_busy || switch_busy || ep_tx_valid != '0 || ep_rx_valid != '0
                      || ep_tx_mid != '0 || ep_rx_mid != '0 || rp_rx_mid != '0 || rp_tx_mid != '0
                      || mem_req_valid_o || mem_rsp_valid_i || cpu_req_valid_i;

endmodule
