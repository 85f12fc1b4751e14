// SPDX-License-Identifier: MIT OR Apache-2.0

/// The ports of the IOMMU towards the host bridge, and the encodings of the RISC-V IOMMU
/// specification v1.0 that more than one of its blocks needs.
package iommu_pkg;

  /// Transaction type, encoded as in the TTYP field of a fault record (IOMMU §3.2, Table 11).
  typedef enum logic [5:0] {
    TtNone       = 6'd0,
    TtUntransRx  = 6'd1,
    TtUntransRd  = 6'd2,
    TtUntransWr  = 6'd3,
    TtTransRx    = 6'd5,
    TtTransRd    = 6'd6,
    TtTransWr    = 6'd7,
    TtAtsReq     = 6'd8,
    TtMessage    = 6'd9
  } ttyp_e;

  /// Number of translation requests that may be under way at the port, and the width of their
  /// tag. Responses carry the tag and may come in any order.
  localparam int unsigned TrTagW = 5;

  /// Translation request (ready/valid; the request is stable while valid and not ready).
  typedef struct packed {
    ttyp_e             ttyp;
    logic [23:0]       device_id;   // segment number and Requester ID
    logic              pid_valid;   // the request carries a process_id (PASID)
    logic [19:0]       process_id;
    logic              priv;        // privilege mode requested; only with pid_valid
    logic [63:0]       iova;
    logic [TrTagW-1:0] tag;
  } tr_req_t;

  /// How the bridge answers the request.
  typedef enum logic [1:0] {
    TrOk = 2'd0,
    TrUr = 2'd1,  // unsupported request: read completes with UR, write is dropped
    TrCa = 2'd2   // completer abort: read completes with CA, write is dropped
  } tr_status_e;

  /// Translation response (valid only: the bridge always has room, one slot a tag).
  typedef struct packed {
    logic [TrTagW-1:0] tag;
    tr_status_e        status;
    logic [11:0]       cause;  // CAUSE of the fault record when status != TrOk, else 0
    logic [1:0]        pbmt;   // 0 PMA, 1 NC, 2 IO (Svpbmt)
    logic [55:0]       spa;
  } tr_rsp_t;

  /// Memory request of the IOMMU: at most 32 bytes written, 64 bytes read, naturally aligned
  /// within 64 bytes. One at a time a tag. Write data at lane 0 as on the memory port.
  typedef struct packed {
    logic         write;
    logic [3:0]   tag;
    logic [55:0]  addr;    // multiple of 4
    logic [4:0]   len_dw;  // 1..16 read, 1..8 write
    logic [255:0] wdata;
  } iommu_mem_req_t;

  /// Response beats to a read, up to two; to a write one beat without data when the write has
  /// been accepted at the memory port (or has faulted).
  typedef struct packed {
    logic         last;
    logic         error;   // access fault
    logic         poison;
    logic [3:0]   tag;
    logic [255:0] rdata;
  } iommu_mem_rsp_t;

endpackage
