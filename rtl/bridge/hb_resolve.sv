// SPDX-License-Identifier: MIT OR Apache-2.0

/// From a translation to a destination with attributes: PBMT over PMA, No Snoop, Relaxed
/// Ordering, the window of a root port. Combinational.
module hb_resolve #(
  /// Root ports, at most 2.
  parameter int unsigned NumRp = 2,
  localparam int unsigned PortW = (NumRp > 1) ? $clog2(NumRp) : 1
) (
  /// PMA table.
  input mem_pkg::pma_region_t [7:0] pma_i,
  /// Bus address = CPU physical address - offset inside `PmaPcie` regions.
  input logic [63:0] bus_offset_i,
  /// No Snoop is honoured.
  input logic ns_honour_i,
  /// PMA of `PmaPcie` regions: 0 I/O, 1 main memory, cacheable unless the page says otherwise.
  input logic aperture_wb_i,
  /// Configuration of the root ports.
  input port_pkg::port_cfg_t [NumRp-1:0] rp_cfg_i,

  /// Root port of the request.
  input logic [PortW-1:0] port_i,
  /// Its header.
  input tlp_pkg::tlp_hdr_t hdr_i,
  /// How it was translated.
  input iommu_pkg::tr_status_e status_i,
  /// Page-based memory type.
  input logic [1:0] pbmt_i,
  /// System physical address.
  input logic [55:0] spa_i,

  /// The request violates Access Control Services.
  output logic violation_o,
  /// The outcome.
  output bridge_pkg::resolved_t res_o
);

  import tlp_pkg::*;
  import mem_pkg::*;
  import bridge_pkg::*;

  pma_e pma;
  mem_attr_t attr;
  logic [63:0] bus_addr;
  logic peer_hit;
  logic [PortW-1:0] peer;
  logic blocked;

  assign pma = pma_of(pma_i, spa_i);
  assign bus_addr = {8'd0, spa_i} - bus_offset_i;

  always_comb begin
    unique case (pbmt_i)
      2'd1: attr.mem_type = MemNc;
      2'd2: attr.mem_type = MemIo;
      default: begin
        attr.mem_type = (pma == PmaMem || (pma == PmaPcie && aperture_wb_i)) ? MemWb : MemIo;
      end
    endcase
    // Attr[0] is No Snoop, Attr[1] Relaxed Ordering.
    attr.snoop = attr.mem_type == MemWb && !(hdr_i[12] && ns_honour_i);
    attr.strong_order = attr.mem_type == MemIo || (hdr_has_data(hdr_i) && !hdr_i[13]);
  end

  always_comb begin
    peer_hit = 1'b0;
    peer = '0;
    for (int unsigned p = 0; p < NumRp; p++) begin
      if (port_pkg::claims(rp_cfg_i[p], bus_addr)) begin
        peer_hit = 1'b1;
        peer = PortW'(p);
      end
    end
    // Requests reach the bridge whatever Request Redirect says; Egress Control without it blocks
    // (PCIe 6.0 §6.12.3).
    blocked = peer != port_i && rp_cfg_i[port_i].acs.ec && !rp_cfg_i[port_i].acs.rr
              && rp_cfg_i[port_i].acs.egress[5'(peer)];
  end

  always_comb begin
    violation_o = 1'b0;
    res_o = '{dest: DestNone, cpl_status: CplUr, attr: attr, addr: {8'd0, spa_i}};
    if (status_i == iommu_pkg::TrCa) begin
      res_o.cpl_status = CplCa;
    end else if (status_i == iommu_pkg::TrOk && hdr_at(hdr_i) != AtTranslationReq) begin
      unique case (pma)
        PmaMem, PmaIo: res_o.dest = DestMem;
        PmaPcie: begin
          res_o.addr = bus_addr;
          if (peer_hit && blocked) begin
            res_o.cpl_status = CplCa;  // §6.12.4
            violation_o = 1'b1;
          end
          if (peer_hit && !blocked) res_o.dest = dest_e'(2'(DestPeer0) + 2'(peer));
        end
        default: ;
      endcase
    end
  end

endmodule
