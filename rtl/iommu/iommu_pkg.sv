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
    logic [63:56]      addr_hi;    // 0 unless is_gpa, or not translated without
                                   // wide_pass_through_faults
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

  /// When an address beyond PAS in a context is found out (IOMMU §2.1.4 and §2.2.4, notes).
  typedef enum logic {
    WideAccessFault   = 1'b0,  // by the access that uses it
    WideMisconfigured = 1'b1   // by the check of the context that holds it
  } wide_address_e;

  /// What becomes of bits of the MSI address mask and pattern beyond the widest guest address (IOMMU
  /// §2.1.3.6).
  typedef enum logic [1:0] {
    MsiMaskMisconfigured = 2'd0,
    MsiMaskMasked        = 2'd1,  // taken for 0
    MsiMaskUsed          = 2'd2   // compared as the others
  } wide_msi_mask_e;

  /// What a translation request (ATS) that may write gets from a page with D = 0 which hardware does
  /// not update (IOMMU §2.1.3.1, §2.6).
  typedef enum logic [1:0] {
    CleanNoAccess           = 2'd0,  // even if the page may not be written
    CleanNoAccessIfWritable = 2'd1,  // read access if it may not be written
    CleanReadOnly           = 2'd2
  } ats_clean_page_e;

  /// What events 5 to 8 of the performance monitor count (IOMMU §5.23).
  typedef enum logic {
    WalkEventsPerEntry = 1'b0,  // entries that are loaded
    WalkEventsPerWalk  = 1'b1   // walks, however many entries they load
  } walk_events_e;

  /// What an IOMMU can do: the fields of `capabilities` (IOMMU §5.3) with their names there; and what
  /// the specification lets an implementation choose, one field a choice.
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
    // The choices. Names and meaning are those of `Choices` in the golden model, which cites the
    // paragraph of each; what answers reads of an interrupt file in memory is the bridge's.
    logic [1:0][11:0] completer_abort;  // last and first cause of the faults that are answered with CA
    logic            iotval_page_offset;
    logic            iotval2_page_offset;
    logic            pdt_offset_in_iotval2;
    wide_address_e   wide_address;
    logic            gxl_writable;
    logic            msi_needs_second_stage;
    wide_msi_mask_e  wide_msi_mask;
    logic            msi_address_clipped;
    logic            wide_pass_through_faults;
    logic [1:0][3:0] qos_id_bits;  // of MCID and of RCID, up to 12
    logic            execute_needs_read;
    logic            ats_corruption_aborts;
    ats_clean_page_e ats_clean_page;
    logic            ats_access_by_request;
    logic [5:0]      bare_size_log2;  // that of a page: 12, 16, 21, 22, 30, 39 or 48
    logic            cxl_io_for_pma;
    logic            debug_execute_wins;
    logic            debug_superpages;
    walk_events_e    walk_events;
    logic            wide_operand_illegal;
    logic            absent_cache_command_illegal;
    logic            fence_data_big_endian;
    logic            mrif_big_endian;
    logic            reset_mode_bare;
    logic [1:0]      ddt_levels;  // 1 to 3
    logic            fixed_big_endian;
    logic [5:0]      queue_log2_max;          // 1 to 32
    logic [2:0]      interrupt_vectors_log2;  // 0 to 4
    logic [4:0]      event_counters;  // beside the cycle counter, 1 to 31
    logic [6:0]      counter_bits;    // 32 to 64
  } iommu_cfg_t;

  /// No capabilities, and the choices that the configurations below make, but `CfgOther`.
  localparam iommu_cfg_t CfgNone = '{
    completer_abort: {12'd274, 12'd268},
    iotval_page_offset: 1'b1,
    iotval2_page_offset: 1'b1,
    wide_address: WideAccessFault,
    wide_msi_mask: MsiMaskUsed,
    msi_address_clipped: 1'b1,
    wide_pass_through_faults: 1'b1,
    qos_id_bits: {4'd12, 4'd12},
    ats_corruption_aborts: 1'b1,
    ats_clean_page: CleanReadOnly,
    bare_size_log2: 6'd21,
    debug_execute_wins: 1'b1,
    debug_superpages: 1'b1,
    walk_events: WalkEventsPerWalk,
    wide_operand_illegal: 1'b1,
    absent_cache_command_illegal: 1'b1,
    fence_data_big_endian: 1'b1,
    ddt_levels: 2'd3,
    queue_log2_max: 6'd32,
    interrupt_vectors_log2: 3'd4,
    event_counters: 5'd8,
    counter_bits: 7'd64,
    default: '0
  };

  /// First-stage translation of base-format device contexts, interrupts by message.
  function automatic iommu_cfg_t cfg_base(iommu_cfg_t cfg);
    cfg_base = cfg;
    cfg_base.sv39 = 1'b1;
    cfg_base.sv48 = 1'b1;
    cfg_base.sv57 = 1'b1;
    cfg_base.svpbmt = 1'b1;
    cfg_base.pas = 6'd56;
    cfg_base.absent_cache_command_illegal = 1'b0;
  endfunction
  localparam iommu_cfg_t CfgBase = cfg_base(CfgNone);

  /// The same with extended-format device contexts and flat MSI page tables.
  function automatic iommu_cfg_t with_msi_flat(iommu_cfg_t cfg);
    with_msi_flat = cfg;
    with_msi_flat.msi_flat = 1'b1;
  endfunction
  localparam iommu_cfg_t CfgMsiFlat = with_msi_flat(CfgBase);

  /// The least that translates: Sv39 alone, interrupts by wire.
  function automatic iommu_cfg_t cfg_minimal(iommu_cfg_t cfg);
    cfg_minimal = cfg;
    cfg_minimal.sv39 = 1'b1;
    cfg_minimal.igs = 2'd1;
    cfg_minimal.pas = 6'd56;
  endfunction
  localparam iommu_cfg_t CfgMinimal = cfg_minimal(CfgNone);

  /// The least of each feature that has parts: ATS without T2GPA, SXL and GXL without Sv32 and Sv32x4,
  /// second stage and process directory with one format each.
  function automatic iommu_cfg_t cfg_partial(iommu_cfg_t cfg);
    cfg_partial = cfg;
    cfg_partial.sv39x4 = 1'b1;
    cfg_partial.msi_flat = 1'b1;
    cfg_partial.ats = 1'b1;
    cfg_partial.pd8 = 1'b1;
    cfg_partial.gxl_writable = 1'b1;
  endfunction
  localparam iommu_cfg_t CfgPartial = cfg_partial(CfgMinimal);

  /// Everything that is implemented.
  function automatic iommu_cfg_t cfg_full(iommu_cfg_t cfg);
    cfg_full = cfg;
    cfg_full.sv32 = 1'b1;
    cfg_full.sv39 = 1'b1;
    cfg_full.sv48 = 1'b1;
    cfg_full.sv57 = 1'b1;
    cfg_full.sv32x4 = 1'b1;
    cfg_full.sv39x4 = 1'b1;
    cfg_full.sv48x4 = 1'b1;
    cfg_full.sv57x4 = 1'b1;
    cfg_full.svrsw60t59b = 1'b1;
    cfg_full.svpbmt = 1'b1;
    cfg_full.msi_flat = 1'b1;
    cfg_full.msi_mrif = 1'b1;
    cfg_full.amo_mrif = 1'b1;
    cfg_full.amo_hwad = 1'b1;
    cfg_full.ats = 1'b1;
    cfg_full.t2gpa = 1'b1;
    cfg_full.big_endian = 1'b1;
    cfg_full.hpm = 1'b1;
    cfg_full.dbg = 1'b1;
    cfg_full.pd8 = 1'b1;
    cfg_full.pd17 = 1'b1;
    cfg_full.pd20 = 1'b1;
    cfg_full.qosid = 1'b1;
    cfg_full.nl = 1'b1;
    cfg_full.s = 1'b1;
    cfg_full.igs = 2'd2;
    cfg_full.pas = 6'd56;
    cfg_full.gxl_writable = 1'b1;
    cfg_full.mrif_big_endian = 1'b1;
  endfunction
  localparam iommu_cfg_t CfgFull = cfg_full(CfgNone);

  /// The same but for END, in a smaller address space, with each choice made the other way where there is
  /// something to choose.
  localparam iommu_cfg_t CfgOther = '{
    sv32: 1'b1,
    sv39: 1'b1,
    sv48: 1'b1,
    sv57: 1'b1,
    svrsw60t59b: 1'b1,
    svpbmt: 1'b1,
    sv32x4: 1'b1,
    sv39x4: 1'b1,
    amo_mrif: 1'b1,
    msi_flat: 1'b1,
    msi_mrif: 1'b1,
    amo_hwad: 1'b1,
    ats: 1'b1,
    t2gpa: 1'b1,
    igs: 2'd0,
    hpm: 1'b1,
    dbg: 1'b1,
    pas: 6'd44,
    pd8: 1'b1,
    pd17: 1'b1,
    qosid: 1'b1,
    nl: 1'b1,
    s: 1'b1,
    completer_abort: {12'd263, 12'd257},
    pdt_offset_in_iotval2: 1'b1,
    wide_address: WideMisconfigured,
    msi_needs_second_stage: 1'b1,
    wide_msi_mask: MsiMaskMisconfigured,
    qos_id_bits: {4'd5, 4'd7},
    execute_needs_read: 1'b1,
    ats_clean_page: CleanNoAccess,
    ats_access_by_request: 1'b1,
    bare_size_log2: 6'd12,
    cxl_io_for_pma: 1'b1,
    walk_events: WalkEventsPerEntry,
    reset_mode_bare: 1'b1,
    ddt_levels: 2'd2,
    fixed_big_endian: 1'b1,
    queue_log2_max: 6'd9,
    interrupt_vectors_log2: 3'd1,
    event_counters: 5'd3,
    counter_bits: 7'd40,
    default: '0
  };

  /// fctl.BE, or DC.tc.SBE, as it is in effect: without END there is one byte order.
  function automatic logic big_endian(iommu_cfg_t cfg, logic bit_value);
    return cfg.big_endian ? bit_value : cfg.fixed_big_endian;
  endfunction

  /// The `capabilities` register of a configuration (IOMMU §5.3).
  function automatic logic [63:0] capabilities(iommu_cfg_t c);
    return {20'd0, c.s, c.nl, c.qosid, c.pd20, c.pd17, c.pd8, c.pas,
            c.dbg, c.hpm, c.igs, c.big_endian, c.t2gpa, c.ats, c.amo_hwad,
            c.msi_mrif, c.msi_flat, c.amo_mrif, 1'b0, c.sv57x4, c.sv48x4, c.sv39x4, c.sv32x4,
            c.svpbmt, c.svrsw60t59b, 2'd0, c.sv57, c.sv48, c.sv39, c.sv32, 8'h10};
  endfunction

endpackage
