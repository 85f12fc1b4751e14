// SPDX-License-Identifier: MIT OR Apache-2.0

/// The ports of the IOMMU towards the host bridge, and the encodings of the RISC-V IOMMU
/// specification v1.0 that more than one of its blocks needs.
package iommu_pkg;

  /// Transaction type, encoded as in the TTYP field of a fault record (IOMMU §3.2, Table 11). An
  /// AMO is of the write type: it needs the permissions of a store.
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
    logic              no_write;    // TtAtsReq: NW, the device asks for no write permission
    logic              ats_exec;    // TtAtsReq: Execute Requested; only with pid_valid
    ttyp_e             ttyp;
    logic [23:0]       device_id;   // segment number and Requester ID
    logic              pid_valid;   // the request carries a process_id (PASID)
    logic [19:0]       process_id;
    logic              priv;        // privilege mode requested; only with pid_valid
    logic [63:0]       iova;
    logic [TrTagW-1:0] tag;
  } tr_req_t;

  /// How the bridge answers the request. A translation request (TtAtsReq) that is TrOk is answered
  /// with a Translation Completion from `ats`, even if that grants nothing.
  typedef enum logic [1:0] {
    TrOk = 2'd0,
    TrUr = 2'd1,  // unsupported request: read completes with UR, write is dropped
    TrCa = 2'd2   // completer abort: read completes with CA, write is dropped
  } tr_status_e;

  /// Fields of a Translation Completion Data Entry (PCIe 6.0 §10.2.3.2) beside address and size.
  typedef struct packed {
    logic r;
    logic w;
    logic x;           // Exe
    logic u;           // untranslated access only
    logic n;           // non-snooped accesses; always 0
    logic global_map;
    logic priv;
    logic cxl_io;      // for CXL devices: the page is to be accessed with CXL.io
  } ats_cpl_t;

  /// Translation response (valid only: the bridge always has room, one slot a tag).
  typedef struct packed {
    logic [11:0]       rcid;       // DC.ta.RCID, or iommu_qosid where no context applies
    logic [11:0]       mcid;
    ats_cpl_t          ats;        // answer to TtAtsReq, else 0
    logic              is_gpa;     // TtAtsReq with T2GPA: {addr_hi, spa} is a guest address
    logic [63:56]      addr_hi;    // 0 unless is_gpa
    logic [5:0]        size_log2;  // bytes of the translation, 12 and up; it is aligned to them
    logic              is_msi;     // translated by an MSI page table
    logic              is_mrif;    // into a memory-resident interrupt file: spa is not used
    logic              dtf;        // with is_mrif: a fault of the write is not to be reported
    logic [55:9]       mrif_addr;
    logic [43:0]       notice_ppn;
    logic [10:0]       notice_id;
    logic [TrTagW-1:0] tag;
    tr_status_e        status;
    logic [11:0]       cause;      // CAUSE of the fault record when status != TrOk, else 0
    logic [1:0]        pbmt;       // 0 PMA, 1 NC, 2 IO (Svpbmt)
    logic [55:0]       spa;
  } tr_rsp_t;

  /// What a memory request does.
  typedef enum logic [1:0] {
    MemRead  = 2'd0,
    MemWrite = 2'd1,
    MemCas   = 2'd2,  // atomic: if memory holds wdata[127:64], wdata[63:0] is stored
    MemOr    = 2'd3   // atomic: wdata[63:0] is ORed into memory
  } mem_op_e;

  /// Memory request of the IOMMU: at most 32 bytes written, 64 bytes read, 4 or 8 bytes of an atomic
  /// (both operands then in the low lanes of their 64 bits), naturally aligned within 64 bytes. One
  /// at a time a tag. Write data at lane 0 as on the memory port.
  typedef struct packed {
    logic [11:0]  rcid;
    logic [11:0]  mcid;
    logic [1:0]   pbmt;    // memory type of the page that the access is translated by, 0 PMA
    mem_op_e      op;
    logic [3:0]   tag;
    logic [55:0]  addr;    // multiple of 4
    logic [4:0]   len_dw;  // 1..16 read, 1..8 write, 1 or 2 atomic
    logic [255:0] wdata;
  } iommu_mem_req_t;

  /// Response beats to a read, up to two; to a write one beat without data when the write has
  /// been accepted at the memory port (or has faulted); to an atomic one beat with the old value
  /// when the new one is globally visible.
  typedef struct packed {
    logic         last;
    logic         error;   // access fault
    logic         poison;
    logic [3:0]   tag;
    logic [255:0] rdata;
  } iommu_mem_rsp_t;

  /// A write into a memory-resident interrupt file, as a translation has answered it (ready/valid;
  /// AIA, "Memory-resident interrupt files"). The bridge answers reads with 0 and sends only naturally
  /// aligned writes of 4 bytes here.
  typedef struct packed {
    tr_req_t      req;         // the request, for a fault record
    logic         dtf;         // from the answer, as the next five
    logic [11:0]  rcid;
    logic [11:0]  mcid;
    logic [55:9]  mrif_addr;
    logic [43:0]  notice_ppn;
    logic [10:0]  notice_id;
    logic [31:0]  data;
  } mrif_req_t;

  /// A PCIe message for the IOMMU (ready/valid).
  typedef struct packed {
    logic         inv_completion;  // 1: Invalidate Completion, 0: Page Request or Stop Marker
    logic [23:0]  device_id;
    logic         pid_valid;
    logic [19:0]  process_id;
    logic         priv;            // Page Request: privileged mode requested
    logic         exec;            // Page Request: execute requested
    logic         read;            // R
    logic         write;           // W
    logic         last;            // L
    logic [8:0]   prgi;
    logic [63:12] addr;
    logic [31:0]  itag_vector;     // Invalidate Completion
    logic [2:0]   count;           // Invalidate Completion: CC, 0 means 8
  } msg_in_t;

  /// A PCIe message of the IOMMU for a device (ready/valid).
  typedef struct packed {
    logic         prg_response;  // 1: Page Request Group Response, 0: Invalidate Request
    logic [23:0]  device_id;     // destination
    logic         pid_valid;
    logic [19:0]  process_id;
    logic [4:0]   itag;          // Invalidate Request
    logic [63:0]  body;          // Invalidate Request: message body
    logic [8:0]   prgi;          // PRG Response
    logic [3:0]   code;          // PRG Response: response code
  } msg_out_t;

  /// What an IOMMU can do: the fields of `capabilities` (IOMMU §5.3) with their names there, and
  /// what the specification lets an implementation choose beside them.
  typedef struct packed {
    logic       sv32;
    logic       sv39;
    logic       sv48;
    logic       sv57;
    logic       svrsw60t59b;
    logic       svpbmt;
    logic       sv32x4;
    logic       sv39x4;
    logic       sv48x4;
    logic       sv57x4;
    logic       amo_mrif;
    logic       msi_flat;
    logic       msi_mrif;
    logic       amo_hwad;
    logic       ats;
    logic       t2gpa;
    logic       big_endian;  // END
    logic [1:0] igs;
    logic       hpm;
    logic       dbg;
    logic [5:0] pas;
    logic       pd8;
    logic       pd17;
    logic       pd20;
    logic       qosid;
    logic       nl;
    logic       s;
    logic       gxl;         // fctl.GXL can be written
    logic [3:0] rcid_width;  // bits of a RCID, up to 12
    logic [3:0] mcid_width;  // bits of a MCID, up to 12
    logic [4:0] hpm_counters;  // event counters beside the cycle counter, up to 31
    logic [6:0] hpm_width;     // bits of a counter, 32 to 64
  } iommu_cfg_t;

  /// First-stage translation of base-format device contexts, interrupts by message.
  localparam iommu_cfg_t CfgBase = '{
    sv39: 1'b1,
    sv48: 1'b1,
    sv57: 1'b1,
    svpbmt: 1'b1,
    pas: 6'd56,
    hpm_width: 7'd64,
    default: '0
  };

  /// The same with extended-format device contexts and flat MSI page tables.
  function automatic iommu_cfg_t with_msi_flat(iommu_cfg_t cfg);
    with_msi_flat = cfg;
    with_msi_flat.msi_flat = 1'b1;
  endfunction
  localparam iommu_cfg_t CfgMsiFlat = with_msi_flat(CfgBase);

  /// The least that translates: Sv39 alone, interrupts by wire.
  localparam iommu_cfg_t CfgMinimal = '{
    sv39: 1'b1,
    igs: 2'd1,
    pas: 6'd56,
    hpm_width: 7'd64,
    default: '0
  };

  /// Everything that is implemented.
  localparam iommu_cfg_t CfgFull = '{
    sv32: 1'b1,
    sv39: 1'b1,
    sv48: 1'b1,
    sv57: 1'b1,
    svrsw60t59b: 1'b1,
    svpbmt: 1'b1,
    sv32x4: 1'b1,
    sv39x4: 1'b1,
    sv48x4: 1'b1,
    sv57x4: 1'b1,
    amo_mrif: 1'b1,
    msi_flat: 1'b1,
    msi_mrif: 1'b1,
    amo_hwad: 1'b1,
    ats: 1'b1,
    t2gpa: 1'b1,
    big_endian: 1'b1,
    igs: 2'd2,
    hpm: 1'b1,
    dbg: 1'b1,
    pas: 6'd56,
    pd8: 1'b1,
    pd17: 1'b1,
    pd20: 1'b1,
    qosid: 1'b1,
    nl: 1'b1,
    s: 1'b1,
    gxl: 1'b1,
    rcid_width: 4'd12,
    mcid_width: 4'd12,
    hpm_counters: 5'd8,
    hpm_width: 7'd64,
    default: '0
  };

  /// The `capabilities` register of a configuration (IOMMU §5.3).
  function automatic logic [63:0] capabilities(iommu_cfg_t c);
    return {20'd0, c.s, c.nl, c.qosid, c.pd20, c.pd17, c.pd8, c.pas,
            c.dbg, c.hpm, c.igs, c.big_endian, c.t2gpa, c.ats, c.amo_hwad,
            c.msi_mrif, c.msi_flat, c.amo_mrif, 1'b0, c.sv57x4, c.sv48x4, c.sv39x4, c.sv32x4,
            c.svpbmt, c.svrsw60t59b, 2'd0, c.sv57, c.sv48, c.sv39, c.sv32, 8'h10};
  endfunction

endpackage
