// SPDX-License-Identifier: MIT OR Apache-2.0

/// Types that the blocks of the host bridge share.
package bridge_pkg;

  /// Requester and Completer ID of the host bridge (00:00.0) and Requester ID of the IOMMU.
  localparam logic [15:0] BridgeId = 16'h0000;
  localparam logic [15:0] IommuId = 16'h0008;
  /// Device number of the first root port on bus 0.
  localparam logic [4:0] FirstRpDevice = 5'd2;

  /// Where a request goes after translation.
  typedef enum logic [1:0] {
    DestNone  = 2'd0,  // completed here, or dropped when posted
    DestMem   = 2'd1,  // memory port
    DestPeer0 = 2'd2,  // down root port 0
    DestPeer1 = 2'd3   // down root port 1
  } dest_e;

  /// Outcome of translation and attribute resolution.
  typedef struct packed {
    dest_e dest;
    logic [2:0] cpl_status;    // for DestNone
    mem_pkg::mem_attr_t attr;
    logic [63:0] addr;         // DestMem: SPA; DestPeer*: bus address
  } resolved_t;

  /// Kind of the system physical address; what no row holds is vacant.
  function automatic mem_pkg::pma_e pma_of(mem_pkg::pma_region_t [7:0] table_i,
                                           logic [55:0] addr);
    mem_pkg::pma_e kind;
    kind = mem_pkg::PmaVacant;
    for (int unsigned i = 0; i < 8; i++) begin
      if (table_i[i].kind != mem_pkg::PmaVacant && addr >= table_i[i].base
          && addr <= table_i[i].limit) begin
        kind = table_i[i].kind;
      end
    end
    return kind;
  endfunction

endpackage
