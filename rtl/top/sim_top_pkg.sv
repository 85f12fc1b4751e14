// SPDX-License-Identifier: MIT OR Apache-2.0

/// Types of the taps of `sim_top`.
package sim_top_pkg;

  /// Endpoints.
  localparam int unsigned NumEp = 3;
  /// Root ports.
  localparam int unsigned NumRp = 2;

  /// A request as it leaves the translation stage; 256 bits.
  typedef struct packed {
    logic [15:0] rsvd;
    logic [0:0] port;                // root port it came from
    iommu_pkg::tr_status_e status;
    logic [11:0] cause;
    logic [1:0] pbmt;
    mem_pkg::mem_attr_t attr;        // resolved
    bridge_pkg::dest_e dest;
    logic [55:0] spa;
    tlp_pkg::tlp_head_t head;        // as it came
  } tr_tap_t;

endpackage
