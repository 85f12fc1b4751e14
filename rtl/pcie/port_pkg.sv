// SPDX-License-Identifier: MIT OR Apache-2.0

/// What a port with a type 1 configuration header (root port, switch port) knows after decoding
/// its registers, and the routing questions that follow from it.
package port_pkg;

  /// Device/Port Type of the PCI Express capability (PCIe 6.0 §7.5.3.2).
  localparam logic [3:0] PortRoot = 4'h4;
  localparam logic [3:0] PortUpstream = 4'h5;
  localparam logic [3:0] PortDownstream = 4'h6;

  /// ACS control bits (PCIe 6.0 §7.7.11.3) and the egress control vector.
  typedef struct packed {
    logic [31:0] egress;  // bit n: towards port number n
    logic ec;             // P2P Egress Control
    logic uf;             // Upstream Forwarding
    logic cr;             // P2P Completion Redirect
    logic rr;             // P2P Request Redirect
    logic sv;             // Source Validation
  } acs_t;

  /// Decoded type 1 header, PCI Express capability and ACS capability.
  typedef struct packed {
    logic mem_en;      // Command.Memory Space Enable
    logic master_en;   // Command.Bus Master Enable
    logic [7:0] secondary;
    logic [7:0] subordinate;
    logic [31:0] mem_base;  // non-prefetchable window, ends inclusive
    logic [31:0] mem_limit;
    logic [63:0] pf_base;   // prefetchable window, ends inclusive
    logic [63:0] pf_limit;
    logic [2:0] mps;        // Device Control
    logic [2:0] mrrs;
    acs_t acs;
  } port_cfg_t;

  /// The address is in one of the windows. Windows are multiples of 1 MiB and a request does not
  /// cross 4 KiB, so its first address speaks for all of it.
  function automatic logic in_window(port_cfg_t c, logic [63:0] addr);
    logic np;
    logic pf;
    np = addr[63:32] == 32'd0 && addr[31:0] >= c.mem_base && addr[31:0] <= c.mem_limit;
    pf = addr >= c.pf_base && addr <= c.pf_limit;
    return np || pf;
  endfunction

  /// A request from above is claimed (PCIe 6.0 §7.5.1.1.3).
  function automatic logic claims(port_cfg_t c, logic [63:0] addr);
    return c.mem_en && in_window(c, addr);
  endfunction

  /// The bus is below the port. Secondary 0 is the state after reset: nothing is below.
  function automatic logic bus_below(port_cfg_t c, logic [7:0] bus);
    return c.secondary != 8'd0 && bus >= c.secondary && bus <= c.subordinate;
  endfunction

endpackage
