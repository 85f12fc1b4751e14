// SPDX-License-Identifier: MIT OR Apache-2.0

/// The root ports' way down: the CPU's requests, requests of peers with their new address,
/// completions routed by Requester ID (PCIe 6.0 §2.2.4.2). Also completes what translation or
/// routing refused. A completion whose requester is below no root port is dropped.
///
/// Handshake kinds: class-ready for the links, ready/valid for the others.
module hb_egress #(
  /// Beat type of the root ports.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Root ports.
  parameter int unsigned NumRp = 2,
  localparam int unsigned PortW = (NumRp > 1) ? $clog2(NumRp) : 1
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,
  /// Configuration of the root ports.
  input port_pkg::port_cfg_t [NumRp-1:0] rp_cfg_i,

  /// The CPU's request.
  input logic cpu_valid_i,
  /// It is taken.
  output logic cpu_take_o,
  /// It is posted.
  input logic cpu_posted_i,
  /// Its root port.
  input logic [PortW-1:0] cpu_port_i,
  /// The TLP.
  input beat_t cpu_beat_i,
  /// A completion for the CPU, always accepted.
  output logic cpu_cpl_valid_o,
  /// Its beat.
  output beat_t cpu_cpl_beat_o,

  /// Posted requests from below, by port.
  input logic [NumRp-1:0] p_valid_i,
  /// Their beats.
  input beat_t [NumRp-1:0] p_beat_i,
  /// Their destinations.
  input bridge_pkg::resolved_t [NumRp-1:0] p_res_i,
  /// The memory port takes the beat.
  input logic [NumRp-1:0] p_mem_take_i,
  /// The beat is taken, here or by the memory port.
  output logic [NumRp-1:0] p_take_o,

  /// Non-posted requests from below, by port.
  input logic [NumRp-1:0] np_valid_i,
  /// Their headers.
  input tlp_pkg::tlp_head_t [NumRp-1:0] np_head_i,
  /// Their destinations.
  input bridge_pkg::resolved_t [NumRp-1:0] np_res_i,
  /// The memory port takes the request.
  input logic [NumRp-1:0] np_mem_take_i,
  /// The request is taken, here or by the memory port.
  output logic [NumRp-1:0] np_take_o,

  /// Completions from below, by port.
  input logic [NumRp-1:0] cpl_valid_i,
  /// Their beats.
  input beat_t [NumRp-1:0] cpl_beat_i,
  /// Taken.
  output logic [NumRp-1:0] cpl_take_o,

  /// Completion of a memory read.
  input logic mcpl_valid_i,
  /// Its beat.
  input beat_t mcpl_beat_i,
  /// Taken.
  output logic mcpl_ready_o,

  /// Downwards.
  output beat_t [NumRp-1:0] rp_tx_beat_o,
  /// Downwards.
  output logic [NumRp-1:0] rp_tx_valid_o,
  /// Downwards.
  input tlp_pkg::tlp_ready_t [NumRp-1:0] rp_tx_ready_i
);

  import tlp_pkg::*;
  import bridge_pkg::*;

  typedef enum logic [1:0] { ToPort, ToCpu, ToNone } to_e;
  typedef struct packed {
    to_e to;
    logic [PortW-1:0] port;
  } route_t;

  function automatic route_t route(port_pkg::port_cfg_t [NumRp-1:0] cfg, logic [15:0] id);
    route_t r;
    r = '{to: (id == BridgeId) ? ToCpu : ToNone, port: '0};
    for (int unsigned p = 0; p < NumRp; p++) begin
      if (port_pkg::bus_below(cfg[p], id[15:8])) r = '{to: ToPort, port: PortW'(p)};
    end
    return r;
  endfunction

  // Streams of one egress: CPU posted, CPU non-posted, memory completions, then four a port:
  // posted, non-posted, completions from below, refusals.
  localparam int unsigned CpuP = 0;
  localparam int unsigned CpuNp = 1;
  localparam int unsigned Mem = 2;
  localparam int unsigned NumIn = 3 + 4 * NumRp;

  function automatic logic [NumIn-1:0][1:0] classes();
    logic [NumIn-1:0][1:0] r;
    r[CpuP] = 2'(ClassP);
    r[CpuNp] = 2'(ClassNp);
    r[Mem] = 2'(ClassCpl);
    for (int unsigned p = 0; p < NumRp; p++) begin
      r[3+4*p] = 2'(ClassP);
      r[4+4*p] = 2'(ClassNp);
      r[5+4*p] = 2'(ClassCpl);
      r[6+4*p] = 2'(ClassCpl);
    end
    return r;
  endfunction

  beat_t [NumIn-1:0] beat;
  route_t mcpl_to;
  route_t mcpl_to_q;
  route_t [NumRp-1:0] cpl_to;
  route_t [NumRp-1:0] cpl_to_q;
  route_t [NumRp-1:0] refuse_to;
  logic [NumRp-1:0][NumIn-1:0] valid;
  logic [NumRp-1:0][NumIn-1:0] take;
  logic [NumIn-1:0] taken;

  always_comb begin
    beat = '0;
    beat[CpuP] = cpu_beat_i;
    beat[CpuNp] = cpu_beat_i;
    beat[Mem] = mcpl_beat_i;
    for (int unsigned p = 0; p < NumRp; p++) begin
      beat[3+4*p] = p_beat_i[p];
      beat[3+4*p].head.hdr = hdr_set_addr(p_beat_i[p].head.hdr, p_res_i[p].addr);
      beat[4+4*p].sop = 1'b1;
      beat[4+4*p].eop = 1'b1;
      beat[4+4*p].head = np_head_i[p];
      beat[4+4*p].head.hdr = hdr_set_addr(np_head_i[p].hdr, np_res_i[p].addr);
      beat[5+4*p] = cpl_beat_i[p];
      beat[6+4*p].sop = 1'b1;
      beat[6+4*p].eop = 1'b1;
      beat[6+4*p].head.hdr = hdr_is_mem(np_head_i[p].hdr)
          ? mk_cpl_hdr(1'b0, np_res_i[p].cpl_status, BridgeId, np_head_i[p].hdr, 11'd0,
                       read_byte_count(np_head_i[p].hdr),
                       7'(hdr_addr(np_head_i[p].hdr))
                       | 7'(be_offset(hdr_first_be(np_head_i[p].hdr))))
          : mk_cpl_hdr(1'b0, np_res_i[p].cpl_status, BridgeId, np_head_i[p].hdr, 11'd0, 13'd4,
                       7'd0);
    end
  end

  // Beats after the first go where the first went.
  always_comb begin
    mcpl_to = mcpl_beat_i.sop ? route(rp_cfg_i, cpl_req_id(mcpl_beat_i.head.hdr)) : mcpl_to_q;
    for (int unsigned p = 0; p < NumRp; p++) begin
      cpl_to[p] = cpl_beat_i[p].sop ? route(rp_cfg_i, cpl_req_id(cpl_beat_i[p].head.hdr))
                                    : cpl_to_q[p];
      refuse_to[p] = route(rp_cfg_i, hdr_req_id(np_head_i[p].hdr));
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      mcpl_to_q <= '0;
      cpl_to_q <= '0;
    end else begin
      if (mcpl_valid_i && mcpl_ready_o) mcpl_to_q <= mcpl_to;
      for (int unsigned p = 0; p < NumRp; p++) begin
        if (cpl_take_o[p]) cpl_to_q[p] <= cpl_to[p];
      end
    end
  end

  for (genvar e = 0; e < NumRp; e++) begin : gen_egress
    localparam dest_e Here = (e == 0) ? DestPeer0 : DestPeer1;

    always_comb begin
      valid[e] = '0;
      valid[e][CpuP] = cpu_valid_i && cpu_posted_i && cpu_port_i == PortW'(e);
      valid[e][CpuNp] = cpu_valid_i && !cpu_posted_i && cpu_port_i == PortW'(e);
      valid[e][Mem] = mcpl_valid_i && mcpl_to == {ToPort, PortW'(e)};
      for (int unsigned p = 0; p < NumRp; p++) begin
        valid[e][3+4*p] = p_valid_i[p] && p_res_i[p].dest == Here;
        valid[e][4+4*p] = np_valid_i[p] && np_res_i[p].dest == Here;
        valid[e][5+4*p] = cpl_valid_i[p] && cpl_to[p] == {ToPort, PortW'(e)};
        valid[e][6+4*p] = np_valid_i[p] && np_res_i[p].dest == DestNone
                          && refuse_to[p] == {ToPort, PortW'(e)};
      end
    end

    tlp_arb #(
      .beat_t(beat_t),
      .NumIn(NumIn),
      .Class(classes())
    ) u_arb (
      .clk_i,
      .rst_ni,
      .beat_i(beat),
      .valid_i(valid[e]),
      .take_o(take[e]),
      .tx_beat_o(rp_tx_beat_o[e]),
      .tx_valid_o(rp_tx_valid_o[e]),
      .tx_ready_i(rp_tx_ready_i[e]),
      // verilator lint_off PINCONNECTEMPTY
      .sel_o()  // an egress does not ask where its TLP is from
      // verilator lint_on PINCONNECTEMPTY
    );
  end

  always_comb begin
    taken = '0;
    for (int unsigned e = 0; e < NumRp; e++) taken |= take[e];
  end

  // The CPU gets one completion a cycle, lower ports first.
  logic [NumRp-1:0] cpu_sel;
  always_comb begin
    cpu_sel = '0;
    cpu_cpl_beat_o = cpl_beat_i[0];
    for (int unsigned p = NumRp; p > 0; p--) begin
      if (cpl_valid_i[p-1] && cpl_to[p-1].to == ToCpu) begin
        cpu_sel = '0;
        cpu_sel[p-1] = 1'b1;
        cpu_cpl_beat_o = cpl_beat_i[p-1];
      end
    end
  end
  assign cpu_cpl_valid_o = cpu_sel != '0;

  assign cpu_take_o = taken[CpuP] || taken[CpuNp];
  assign mcpl_ready_o = taken[Mem] || (mcpl_valid_i && mcpl_to.to != ToPort);

  always_comb begin
    for (int unsigned p = 0; p < NumRp; p++) begin
      p_take_o[p] = p_mem_take_i[p] || taken[3+4*p]
                    || (p_valid_i[p] && p_res_i[p].dest == DestNone);
      np_take_o[p] = np_mem_take_i[p] || taken[4+4*p] || taken[6+4*p]
                     || (np_valid_i[p] && np_res_i[p].dest == DestNone
                         && refuse_to[p].to != ToPort);
      cpl_take_o[p] = cpu_sel[p] || taken[5+4*p]
                      || (cpl_valid_i[p] && cpl_to[p].to == ToNone);
    end
  end

  // A stream leaves by one port.
  for (genvar s = 0; s < NumIn; s++) begin : gen_once
    logic [NumRp-1:0] by;
    for (genvar e = 0; e < NumRp; e++) begin : gen_by
      assign by[e] = take[e][s];
    end
    assert property (@(posedge clk_i) disable iff (!rst_ni) $onehot0(by));
  end

endmodule
