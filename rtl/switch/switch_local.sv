// SPDX-License-Identifier: MIT OR Apache-2.0

/// The switch as a target: the configuration spaces of its ports, and the completer of requests
/// that it cannot route. Posted requests and completions that end here are dropped.
///
/// Handshake kinds: class-ready in; ready/valid out, one completion of one beat at a time.
module switch_local #(
  /// Beat type of the ports.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Downstream ports.
  parameter int unsigned NumDn = 2,
  localparam int unsigned PortW = $clog2(NumDn + 2)
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A TLP that ends here.
  input beat_t rx_beat_i,
  /// A TLP that ends here.
  input logic rx_valid_i,
  /// Posted and completions always; non-posted when the last answer has left.
  output tlp_pkg::tlp_ready_t rx_ready_o,
  /// The port it entered.
  input logic [PortW-1:0] src_i,
  /// With a non-posted `sop` beat: it is for the configuration space of port `fn_i`.
  input logic cfg_hit_i,
  /// See `cfg_hit_i`.
  input logic [PortW-1:0] fn_i,
  /// With a non-posted `sop` beat that is no `cfg_hit_i`: how it completes.
  input logic [2:0] status_i,
  /// With the `sop` beat of a request: it violates Access Control Services of the port it entered.
  input logic violation_i,

  /// The completion.
  output beat_t cpl_beat_o,
  /// There is a completion.
  output logic cpl_valid_o,
  /// It is taken.
  input logic cpl_take_i,
  /// The port that it leaves by.
  output logic [PortW-1:0] cpl_dest_o,

  /// Configuration of all ports, 0 the upstream port.
  output port_pkg::port_cfg_t [NumDn:0] cfg_o
);

  import tlp_pkg::*;

  logic sop_np;
  logic cfg_write;
  logic violation;
  logic [NumDn:0][31:0] rdata;
  logic [15:0] up_id_q;  // Bus and Device Number captured by the upstream port (§2.2.6.2)
  logic mid_q;
  logic cpl_valid_q;
  logic [PortW-1:0] cpl_dest_q;
  tlp_hdr_t cpl_hdr_d;
  tlp_hdr_t cpl_hdr_q;
  logic [31:0] cpl_data_q;
  tlp_hdr_t hdr;

  assign hdr = rx_beat_i.head.hdr;
  assign rx_ready_o[ClassP] = 1'b1;
  assign rx_ready_o[ClassCpl] = 1'b1;
  assign rx_ready_o[ClassNp] = mid_q || !cpl_valid_q;
  assign sop_np = rx_valid_i && rx_beat_i.sop && hdr_class(hdr) == ClassNp && rx_ready_o[ClassNp];
  assign cfg_write = sop_np && cfg_hit_i && hdr_has_data(hdr);

  // Posted or non-posted (PCIe 6.0 §6.12.4).
  assign violation = rx_valid_i && rx_beat_i.sop && violation_i && rx_ready_o[hdr_class(hdr)];

  for (genvar p = 0; p <= NumDn; p++) begin : gen_fn
    cfg_type1 #(
      .VendorId(16'h1b36),
      .DeviceId(16'h000d),
      .PortType((p == 0) ? port_pkg::PortUpstream : port_pkg::PortDownstream),
      .PortNumber((p == 0) ? 8'(NumDn) : 8'(p - 1)),
      .NumPeers(NumDn),
      .HasAcs(p != 0)
    ) u_cfg (
      .clk_i,
      .rst_ni,
      .write_i(cfg_write && fn_i == PortW'(p)),
      .dw_i(hdr_cfg_dw(hdr)),
      .be_i(hdr_first_be(hdr)),
      .wdata_i(rx_beat_i.data[31:0]),
      .rdata_o(rdata[p]),
      .target_abort_i(violation && src_i == PortW'(p)),
      .cfg_o(cfg_o[p])
    );
  end

  always_comb begin
    logic [15:0] port_id;
    logic [4:0] device;
    device = 5'(src_i) - 5'd1;
    port_id = (src_i == '0) ? up_id_q : {cfg_o[0].secondary, device, 3'd0};
    if (cfg_hit_i) begin
      cpl_hdr_d = mk_cpl_hdr(!hdr_has_data(hdr), CplSc, hdr_target_id(hdr), hdr,
                             hdr_has_data(hdr) ? 11'd0 : 11'd1, 13'd4, 7'd0);
    end else if (hdr_is_mem(hdr)) begin
      cpl_hdr_d = mk_cpl_hdr(1'b0, status_i, port_id, hdr, 11'd0, read_byte_count(hdr),
                             7'(hdr_addr(hdr)) | 7'(be_offset(hdr_first_be(hdr))));
    end else begin
      cpl_hdr_d = mk_cpl_hdr(1'b0, status_i, port_id, hdr, 11'd0, 13'd4, 7'd0);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      up_id_q <= '0;
      mid_q <= 1'b0;
      cpl_valid_q <= 1'b0;
      cpl_dest_q <= '0;
      cpl_hdr_q <= '0;
      cpl_data_q <= '0;
    end else begin
      if (sop_np) begin
        cpl_valid_q <= 1'b1;
        cpl_dest_q <= src_i;
        cpl_hdr_q <= cpl_hdr_d;
        cpl_data_q <= rdata[fn_i];
        // Only Type 0 requests reach function 0.
        if (cfg_write && fn_i == '0) up_id_q <= hdr_target_id(hdr);
      end else if (cpl_take_i) begin
        cpl_valid_q <= 1'b0;
      end
      if (sop_np) mid_q <= !rx_beat_i.eop;
      else if (mid_q && rx_valid_i && rx_beat_i.eop) mid_q <= 1'b0;
    end
  end

  always_comb begin
    cpl_beat_o = '0;
    cpl_beat_o.sop = 1'b1;
    cpl_beat_o.eop = 1'b1;
    cpl_beat_o.head.hdr = cpl_hdr_q;
    cpl_beat_o.data[31:0] = cpl_data_q;
  end

  assign cpl_valid_o = cpl_valid_q;
  assign cpl_dest_o = cpl_dest_q;

  // One answer at a time.
  assert property (@(posedge clk_i) disable iff (!rst_ni) !sop_np || !cpl_valid_q);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !cpl_take_i || cpl_valid_q);

endmodule
