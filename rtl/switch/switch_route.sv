// SPDX-License-Identifier: MIT OR Apache-2.0

/// Where a TLP that entered one port of the switch goes: routing by address, by ID and implicit
/// (PCIe 6.0 §2.2.4), through the type 1 headers of the ports and, for what comes from below,
/// Access Control Services (§6.12). Combinational.
///
/// Ports are numbered 0 for the upstream port and 1 + n for downstream port n; NumDn + 1 is the
/// switch itself, which answers configuration requests and what cannot be routed.
module switch_route #(
  /// Downstream ports.
  parameter int unsigned NumDn = 2,
  /// The port that the TLP entered.
  parameter int unsigned Port = 0,
  localparam int unsigned PortW = $clog2(NumDn + 2)
) (
  /// Header of the TLP.
  input tlp_pkg::tlp_hdr_t hdr_i,
  /// Configuration of all ports.
  input port_pkg::port_cfg_t [NumDn:0] cfg_i,

  /// The port that it leaves by, or the switch itself.
  output logic [PortW-1:0] dest_o,
  /// It goes to all downstream ports, one after the other.
  output logic broadcast_o,
  /// It is for the configuration space of port `fn_o`.
  output logic cfg_hit_o,
  /// See `cfg_hit_o`.
  output logic [PortW-1:0] fn_o,
  /// Otherwise, if it stays here: how it completes.
  output logic [2:0] status_o,
  /// It stays here because it violates Access Control Services.
  output logic violation_o,
  /// The header to forward.
  output tlp_pkg::tlp_hdr_t hdr_o
);

  import tlp_pkg::*;
  import port_pkg::*;

  localparam logic [PortW-1:0] Up = '0;
  localparam logic [PortW-1:0] Local = PortW'(NumDn + 1);
  localparam bit FromUp = Port == 0;

  // Message routing, Type[2:0] (PCIe 6.0 Table 2-20).
  localparam logic [2:0] MsgToRoot = 3'd0;
  localparam logic [2:0] MsgById = 3'd2;
  localparam logic [2:0] MsgBroadcast = 3'd3;
  localparam logic [2:0] MsgGather = 3'd5;

  logic is_mem;
  logic by_id;
  logic [7:0] route_bus;

  assign is_mem = hdr_is_mem(hdr_i);
  assign by_id = hdr_is_cpl(hdr_i) || (hdr_is_msg(hdr_i) && hdr_i[26:24] == MsgById);
  // Requester ID of a completion, target of a request: the same place in the header.
  assign route_bus = hdr_i[95:88];

  // The downstream port whose windows or buses hold the target. Software keeps them disjoint.
  logic hit;
  logic [PortW-1:0] hit_port;

  always_comb begin
    hit = 1'b0;
    hit_port = Local;
    for (int unsigned j = 1; j <= NumDn; j++) begin
      if (is_mem ? claims(cfg_i[j], hdr_addr(hdr_i)) : bus_below(cfg_i[j], route_bus)) begin
        hit = 1'b1;
        hit_port = PortW'(j);
      end
    end
  end

  if (FromUp) begin : gen_from_up
    logic type1;
    logic [4:0] device;
    logic [2:0] func;
    logic on_secondary;
    logic own_bus;

    assign type1 = hdr_i[24];
    assign device = hdr_i[87:83];
    assign func = hdr_i[82:80];
    assign on_secondary = bus_below(cfg_i[0], route_bus)
                          && route_bus == cfg_i[0].secondary;
    assign own_bus = hit && route_bus == cfg_i[hit_port].secondary;

    always_comb begin
      dest_o = Local;
      broadcast_o = 1'b0;
      cfg_hit_o = 1'b0;
      fn_o = '0;
      hdr_o = hdr_i;
      if (is_mem) begin
        if (claims(cfg_i[0], hdr_addr(hdr_i)) && hit) dest_o = hit_port;
      end else if (by_id) begin
        if (hit) dest_o = hit_port;
      end else if (hdr_is_msg(hdr_i)) begin
        broadcast_o = hdr_i[26:24] == MsgBroadcast;
      end else if (hdr_is_cfg(hdr_i)) begin
        if (!type1) begin
          cfg_hit_o = func == 3'd0;
        end else if (on_secondary) begin
          cfg_hit_o = 32'(device) < NumDn && func == 3'd0;
          fn_o = PortW'(device) + PortW'(1);
        end else if (hit && bus_below(cfg_i[0], route_bus)) begin
          // A link has one device, number 0 (PCIe 6.0 §7.3.1).
          if (!own_bus || device == 5'd0) dest_o = hit_port;
          if (own_bus) hdr_o[24] = 1'b0;
        end
      end
    end

    assign status_o = CplUr;
    assign violation_o = 1'b0;
  end else begin : gen_from_below
    acs_t acs;
    logic own;
    logic violation;
    logic above;
    logic relaxed;
    logic [7:0] req_bus;

    assign relaxed = hdr_i[13];
    assign req_bus = hdr_i[63:56];
    assign acs = cfg_i[Port].acs;
    assign own = hit && hit_port == PortW'(Port);
    // What the upstream port passes on: it claims its own windows and buses for what is below.
    assign above = is_mem ? !claims(cfg_i[0], hdr_addr(hdr_i))
                          : !bus_below(cfg_i[0], route_bus);
    assign hdr_o = hdr_i;
    assign broadcast_o = 1'b0;
    assign cfg_hit_o = 1'b0;
    assign fn_o = '0;
    assign violation_o = violation;
    assign status_o = violation ? CplCa : CplUr;  // §6.12.4

    always_comb begin
      logic vector;
      dest_o = Local;
      violation = 1'b0;
      vector = hit && acs.egress[5'(hit_port) - 5'd1];
      if (hdr_is_cpl(hdr_i)) begin
        // Completion Redirect spares completions with Relaxed Ordering (§6.12.1.1).
        if (own) dest_o = acs.uf ? Up : Local;
        else if (hit) dest_o = (acs.cr && !relaxed) ? Up : hit_port;
        else if (above) dest_o = Up;
      end else if (acs.sv && !bus_below(cfg_i[Port], req_bus)) begin
        violation = 1'b1;
      end else if (is_mem || by_id) begin
        if (is_mem && !cfg_i[Port].master_en) dest_o = Local;
        else if (own) dest_o = acs.uf ? Up : Local;
        else if (hit) begin
          // Egress Control alone blocks; together with Request Redirect it chooses what is
          // redirected (§6.12.3).
          if (acs.ec && vector && !acs.rr) violation = 1'b1;
          else if (acs.rr && (!acs.ec || vector)) dest_o = Up;
          else dest_o = hit_port;
        end else if (above) dest_o = Up;
        if (is_mem && dest_o == Up && !cfg_i[0].master_en) dest_o = Local;
      end else if (hdr_is_msg(hdr_i)
                   && (hdr_i[26:24] == MsgToRoot || hdr_i[26:24] == MsgGather)) begin
        dest_o = Up;
      end
    end
  end

endmodule
