// SPDX-License-Identifier: MIT OR Apache-2.0

/// The memory port of the host bridge and the attributes that leave it.
///
/// Request channel (ready/valid, beats): a write carries its data in beats of `MemDataW` bits,
/// first DW at lane 0, like a TLP payload; a read is one beat. `sop` beats carry `req`, and `req`
/// is stable over all beats of a write. `mem_ready` may depend on nothing but the memory's state.
/// A write is globally visible once its last beat has been accepted: the port is the point of
/// coherence, and there is no write response.
///
/// Response channel (ready/valid): reads are answered by tag, tags in any order. One read is
/// answered by one or more chunks in ascending address order; each chunk but the last ends on a
/// 64-byte boundary (the Read Completion Boundary, PCIe 6.0 §2.3.1.1) and is at most the maximum
/// payload size; the beats of a chunk are contiguous (no other tag between) and its first DW is
/// at lane 0.
package mem_pkg;

  /// Width of a memory-port beat in bits.
  localparam int unsigned MemDataW = 256;

  /// Memory type of an access after attribute resolution (RISC-V privileged spec, Svpbmt).
  typedef enum logic [1:0] {
    MemWb = 2'd0,  // cacheable, write-back main memory
    MemNc = 2'd1,  // non-cacheable, idempotent, weakly ordered
    MemIo = 2'd2   // non-cacheable, non-idempotent, strongly ordered
  } mem_type_e;

  /// What a region of the system physical address space is (the PMA table).
  typedef enum logic [1:0] {
    PmaVacant = 2'd0,  // nothing there: access fault
    PmaMem = 2'd1,     // main memory, MemWb unless the page says otherwise
    PmaIo = 2'd2,      // device behind the memory port (interrupt files), MemIo
    PmaPcie = 2'd3     // PCIe MMIO aperture: routed to a root port, MemIo
  } pma_e;

  /// One row of the PMA table: first and last byte, inclusive. A later row never overlaps an
  /// earlier one.
  typedef struct packed {
    pma_e kind;
    logic [55:0] limit;
    logic [55:0] base;
  } pma_region_t;

  /// Who makes a memory request.
  typedef enum logic [1:0] {
    SrcTlp   = 2'd0,  // a device's TLP
    SrcIommu = 2'd1   // an implicit access of the IOMMU (tables, queues, its own MSIs)
  } mem_src_e;

  /// Attributes of one memory request.
  typedef struct packed {
    mem_type_e mem_type;
    logic snoop;         // look into the CPU caches
    logic strong_order;  // no merge, no prefetch, in order (IO, or RO = 0 writes)
  } mem_attr_t;

  /// Memory request. Widths add up to 160 bits.
  typedef struct packed {
    logic [18:0] rsvd;
    mem_src_e src;
    logic write;
    mem_attr_t attr;         // 4 bits
    logic [15:0] req_id;     // Requester ID of the TLP; the IOMMU's own ID for SrcIommu
    logic [9:0] tlp_tag;     // tag of the TLP, 0 for SrcIommu
    logic [7:0] tag;         // tag of a read at this port
    logic [3:0] last_be;     // as in a TLP header
    logic [3:0] first_be;
    logic [10:0] len_dw;     // 1..1024
    logic [55:0] addr;       // DW aligned
    logic [24:0] rsvd1;
  } mem_req_t;

  /// Read response beat.
  typedef struct packed {
    logic sop;
    logic eop;           // last beat of this chunk
    logic last;          // with eop: last chunk of the read
    logic error;         // access fault at this address: no data follows (sop, eop, last set)
    logic poison;        // data is known to be corrupt
    logic [7:0] tag;
    logic [10:0] len_dw; // DWs in this chunk, valid with sop
    logic [MemDataW-1:0] data;
  } mem_rsp_t;

endpackage
