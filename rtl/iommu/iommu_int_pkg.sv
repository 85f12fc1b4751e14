// SPDX-License-Identifier: MIT OR Apache-2.0

/// Types shared by the blocks inside the IOMMU. Nothing here is visible at its ports.
package iommu_int_pkg;
  import iommu_pkg::*;

  /// CAUSE of a fault record (IOMMU §3.2). 0 means no fault.
  typedef logic [11:0] cause_t;
  localparam cause_t CauseNone = 12'd0;
  localparam cause_t CauseInstrAccess = 12'd1;
  localparam cause_t CauseReadAccess = 12'd5;
  localparam cause_t CauseWriteAccess = 12'd7;
  localparam cause_t CauseInstrPage = 12'd12;
  localparam cause_t CauseReadPage = 12'd13;
  localparam cause_t CauseWritePage = 12'd15;
  localparam cause_t CauseInstrGuestPage = 12'd20;
  localparam cause_t CauseReadGuestPage = 12'd21;
  localparam cause_t CauseWriteGuestPage = 12'd23;
  localparam cause_t CauseAllDisallowed = 12'd256;
  localparam cause_t CauseDdtAccess = 12'd257;
  localparam cause_t CauseDdtInvalid = 12'd258;
  localparam cause_t CauseDdtMisconfig = 12'd259;
  localparam cause_t CauseTypeDisallowed = 12'd260;
  localparam cause_t CauseMsiPteAccess = 12'd261;
  localparam cause_t CauseMsiPteInvalid = 12'd262;
  localparam cause_t CauseMsiPteMisconfig = 12'd263;
  localparam cause_t CauseMrifAccess = 12'd264;
  localparam cause_t CausePdtAccess = 12'd265;
  localparam cause_t CausePdtInvalid = 12'd266;
  localparam cause_t CausePdtMisconfig = 12'd267;
  localparam cause_t CauseDdtCorrupt = 12'd268;
  localparam cause_t CausePdtCorrupt = 12'd269;
  localparam cause_t CauseMsiPtCorrupt = 12'd270;
  localparam cause_t CauseMrifCorrupt = 12'd271;
  localparam cause_t CauseInternal = 12'd272;
  localparam cause_t CauseMsiWrite = 12'd273;
  localparam cause_t CausePtCorrupt = 12'd274;

  /// `ddtp.iommu_mode` (IOMMU §5.5).
  typedef enum logic [2:0] {
    DdtOff  = 3'd0,
    DdtBare = 3'd1,
    Ddt1Lvl = 3'd2,
    Ddt2Lvl = 3'd3,
    Ddt3Lvl = 3'd4
  } ddt_mode_e;

  /// Scheme of either stage, `iosatp.MODE` and `iohgatp.MODE` made dense: Sv32 or Sv32x4 and so on.
  typedef enum logic [2:0] {
    PtBare = 3'd0,
    PtSv39 = 3'd1,
    PtSv48 = 3'd2,
    PtSv57 = 3'd3,
    PtSv32 = 3'd4
  } pt_mode_e;

  /// `pdtp.MODE` (IOMMU §2.1.3).
  typedef enum logic [1:0] {
    PdBare = 2'd0,
    Pd8    = 2'd1,
    Pd17   = 2'd2,
    Pd20   = 2'd3
  } pd_mode_e;

  /// What is kept of a valid and well configured device context.
  typedef struct packed {
    logic        en_ats;
    logic        en_pri;
    logic        t2gpa;
    logic        dtf;
    logic        pdtv;
    logic        prpr;
    logic        gade;
    logic        sade;
    logic        dpe;
    logic        sbe;
    logic        sxl;
    pt_mode_e    s2_mode;   // iohgatp
    logic [15:0] gscid;
    logic [43:0] s2_ppn;
    logic [19:0] pscid;
    logic [11:0] rcid;
    logic [11:0] mcid;
    pt_mode_e    s1_mode;   // fsc is iosatp; PtBare when pdtv
    pd_mode_e    pd_mode;   // fsc is pdtp; PdBare unless pdtv
    logic [43:0] fsc_ppn;
    logic        msi_en;    // msiptp.MODE is Flat; with the four below 0 in base format
    logic [43:0] msi_ppn;
    logic [51:0] msi_mask;
    logic [51:0] msi_pattern;
  } dc_t;

  /// What is kept of a valid and well configured process context.
  typedef struct packed {
    logic        ens;
    logic        sum;
    logic [19:0] pscid;
    pt_mode_e    s1_mode;
    logic [43:0] s1_ppn;
  } pc_t;

  /// Size of a leaf page, in ascending order.
  typedef enum logic [2:0] {
    Pg4K   = 3'd0,
    Pg64K  = 3'd1,  // Svnapot
    Pg2M   = 3'd2,
    Pg4M   = 3'd3,  // Sv32
    Pg1G   = 3'd4,
    Pg512G = 3'd5,
    Pg256T = 3'd6
  } page_size_e;

  /// Result of a walk of one stage. `w` is PTE.W and PTE.D: a store to a clean page needs a walk,
  /// which updates D or faults. A is 1 in every leaf that a walk accepts.
  typedef struct packed {
    page_size_e  size;
    logic        r;
    logic        w;
    logic        x;
    logic        u;
    logic        global_map;
    logic [1:0]  pbmt;
    logic [43:0] ppn;
  } leaf_t;

  /// What an access wants of a leaf.
  typedef struct packed {
    logic probe;  // translation request: write and exec are wishes, that a leaf may deny
    logic write;
    logic exec;
    logic priv;   // supervisor; only in the first stage
    logic sum;    // with priv: user pages are accessible
  } acc_t;

  /// How a walk has ended. Which cause that is depends on what was walked for.
  typedef enum logic [2:0] {
    WkOk      = 3'd0,
    WkPage    = 3'd1,  // the tables do not permit it
    WkAccess  = 3'd2,  // PMA or PMP
    WkCorrupt = 3'd3,
    WkGuest   = 3'd4   // the second stage does not permit an implicit access of the first
  } walk_e;

  /// Result of the second stage.
  typedef struct packed {
    walk_e result;
    leaf_t leaf;
  } s2_rsp_t;

  /// The first stage of a request.
  typedef struct packed {
    pt_mode_e    mode;
    logic [43:0] ppn;
    logic [19:0] pscid;
  } space_t;

  /// Where an MSI page table leads.
  typedef struct packed {
    logic        mrif;
    logic [43:0] ppn;         // page of the interrupt file
    logic [55:9] mrif_addr;
    logic [43:0] notice_ppn;
    logic [10:0] notice_id;
  } msi_t;

  /// Who asks the front.
  typedef enum logic [1:0] {
    KindTr  = 2'd0,  // the bridge
    KindDbg = 2'd1,  // the debug interface
    KindDir = 2'd2   // a page request: locate the device context only
  } kind_e;

  /// A request in the resolve stage and what is known about it.
  typedef struct packed {
    logic        marked;
    logic        stale;
    logic        missed;      // has been counted as a TLB miss
    kind_e       kind;
    tr_req_t     req;
    ddt_mode_e   mode;        // mode and PPN of one ddtp write (IOMMU §5.5)
    logic [43:0] root_ppn;
    cause_t      cause;       // fault that a walk found
    logic [63:0] iotval2;     // its guest physical address
    logic        dc_valid;
    dc_t         dc;
    logic        pc_valid;
    pc_t         pc;
    logic        leaf_valid;  // first stage
    leaf_t       leaf;
    logic        msi_valid;
    msi_t        msi;
  } ctx_t;

  /// What a fault record reports (IOMMU §3.2); pid and priv are 0 when pid_valid is 0.
  typedef struct packed {
    cause_t      cause;
    ttyp_e       ttyp;
    logic [23:0] device_id;
    logic        pid_valid;
    logic [19:0] process_id;
    logic        priv;
    logic [63:0] iotval;
    logic [63:0] iotval2;
  } fault_t;

  /// Memory request of one client of the arbiter, which adds the tag.
  typedef struct packed {
    logic [11:0]  rcid;
    logic [11:0]  mcid;
    logic [1:0]   pbmt;
    mem_op_e      op;
    logic [55:0]  addr;
    logic [4:0]   len_dw;
    logic [255:0] wdata;
  } mem_req_t;

  /// Clients of the memory arbiter; the number is the tag at the port. The first ones belong to the
  /// translation side, `iommu_xlate`.
  localparam int unsigned MemDdtw = 0;
  localparam int unsigned MemPdtw = 1;
  localparam int unsigned MemS1w = 2;
  localparam int unsigned MemS2w = 3;
  localparam int unsigned MemMsiw = 4;
  localparam int unsigned MemMrif = 5;
  localparam int unsigned NumXlateClients = 6;
  localparam int unsigned MemCq = 6;
  localparam int unsigned MemFq = 7;
  localparam int unsigned MemMsi = 8;
  localparam int unsigned MemPq = 9;
  localparam int unsigned NumMemClients = 10;

  /// IOTINVAL.VMA or IOTINVAL.GVMA (IOMMU §3.1.1), operands as in the command. A command that is
  /// illegal never gets here; NL and S are 0 without their capability.
  typedef struct packed {
    logic         gvma;
    logic         av;
    logic         gv;
    logic         pscv;
    logic         nl;
    logic         s;
    logic [15:0]  gscid;
    logic [19:0]  pscid;
    logic [63:12] addr;
  } iotlb_inval_t;

  /// IODIR.INVAL_DDT or IODIR.INVAL_PDT (IOMMU §3.1.3).
  typedef struct packed {
    logic        pdt;
    logic        dv;
    logic [23:0] device_id;
    logic [19:0] process_id;
  } dir_inval_t;

  /// Asks the front to locate the device context for a page request (IOMMU §2.7).
  typedef struct packed {
    logic [23:0] device_id;
  } dir_req_t;

  /// The answer. The causes are 256, 257, 258, 259, 268, and 260 when the mode is Bare or the
  /// device_id is too wide; whether the context permits page requests is for the asker to see.
  typedef struct packed {
    cause_t cause;
    dc_t    dc;     // when cause is CauseNone
  } dir_rsp_t;

  /// Events for the performance monitor (IOMMU §5.23, eventID 1 to 8): bit i is eventID i. Each bit
  /// is 1 for one cycle an event; the IDs are those of the request which the front works on and
  /// belong to all bits of the cycle. A debug request counts as untranslated.
  localparam int unsigned EvUntranslated = 1;
  localparam int unsigned EvTranslated = 2;
  localparam int unsigned EvAtsRequest = 3;
  localparam int unsigned EvTlbMiss = 4;
  localparam int unsigned EvDdtWalk = 5;
  localparam int unsigned EvPdtWalk = 6;
  localparam int unsigned EvS1Walk = 7;
  localparam int unsigned EvS2Walk = 8;
  typedef struct packed {
    logic [8:1]  pulse;
    logic [23:0] device_id;
    logic        pid_valid;
    logic [19:0] process_id;
    logic        gscid_valid;  // the context is located and has a second stage
    logic [15:0] gscid;
    logic        pscid_valid;  // the address space is known and has a first stage
    logic [19:0] pscid;
  } hpm_event_t;

  /// Software's side of a queue's registers.
  typedef struct packed {
    logic        en;
    logic [43:0] ppn;
    logic [4:0]  log2sz_m1;
    logic [31:0] index;      // cqt or fqh
  } queue_cfg_t;

  /// One row of msi_cfg_tbl (IOMMU §5.29).
  typedef struct packed {
    logic        mask;
    logic [31:0] data;
    logic [55:2] addr;
  } msi_cfg_t;

  /// Index bits of a queue of 2^(log2sz_m1 + 1) entries.
  function automatic logic [31:0] queue_mask(logic [4:0] log2sz_m1);
    return ~(32'hffff_fffe << log2sz_m1);
  endfunction

  /// LOG2SZ - 1 as a base register takes it (IOMMU §5.6, WARL).
  function automatic logic [4:0] queue_size(iommu_cfg_t cfg, logic [4:0] log2sz_m1);
    return 6'(log2sz_m1) < cfg.queue_log2_max ? log2sz_m1 : 5'(cfg.queue_log2_max - 6'd1);
  endfunction

  /// First-stage scheme that iosatp.MODE or PC.fsc.MODE encodes, and whether it is supported.
  function automatic logic [3:0] s1_scheme(iommu_cfg_t cfg, logic sxl, logic [3:0] mode);
    unique case (mode)
      4'd0:    return {1'b1, PtBare};
      4'd8:    return sxl ? {cfg.sv32, PtSv32} : {cfg.sv39, PtSv39};
      4'd9:    return {!sxl && cfg.sv48, PtSv48};
      4'd10:   return {!sxl && cfg.sv57, PtSv57};
      default: return {1'b0, PtBare};
    endcase
  endfunction

  /// Is this page beyond capabilities.PAS? There is no physical memory.
  function automatic logic beyond_pas(iommu_cfg_t cfg, logic [51:0] page);
    return (page >> (cfg.pas - 6'd12)) != '0;
  endfunction

  /// The page without address bits beyond PAS.
  function automatic logic [43:0] clip(iommu_cfg_t cfg, logic [43:0] page);
    logic [51:0] beyond;
    beyond = {52{1'b1}} << (cfg.pas - 6'd12);
    return page & ~beyond[43:0];
  endfunction

  /// Page number bits that lie inside a page of this size.
  function automatic logic [51:0] page_mask(page_size_e size);
    unique case (size)
      Pg64K:   return {48'd0, {4{1'b1}}};
      Pg2M:    return {43'd0, {9{1'b1}}};
      Pg4M:    return {42'd0, {10{1'b1}}};
      Pg1G:    return {34'd0, {18{1'b1}}};
      Pg512G:  return {25'd0, {27{1'b1}}};
      Pg256T:  return {16'd0, {36{1'b1}}};
      default: return '0;
    endcase
  endfunction

  /// The size of this many bytes.
  function automatic page_size_e page_of_log2(logic [5:0] log2);
    unique case (log2)
      6'd16:   return Pg64K;
      6'd21:   return Pg2M;
      6'd22:   return Pg4M;
      6'd30:   return Pg1G;
      6'd39:   return Pg512G;
      6'd48:   return Pg256T;
      default: return Pg4K;
    endcase
  endfunction

  /// Bytes of a page of this size, as a power of two.
  function automatic logic [5:0] page_log2(page_size_e size);
    unique case (size)
      Pg64K:   return 6'd16;
      Pg2M:    return 6'd21;
      Pg4M:    return 6'd22;
      Pg1G:    return 6'd30;
      Pg512G:  return 6'd39;
      Pg256T:  return 6'd48;
      default: return 6'd12;
    endcase
  endfunction

  /// Physical page of `page` under a leaf.
  function automatic logic [43:0] leaf_ppn(leaf_t leaf, logic [51:0] page);
    logic [51:0] mask;
    mask = page_mask(leaf.size);
    return (leaf.ppn & ~mask[43:0]) | (page[43:0] & mask[43:0]);
  endfunction

  /// Doublewords with their bytes in the other order.
  function automatic logic [63:0] swap_bytes(logic [63:0] v);
    return {<<8{v}};
  endfunction
  function automatic logic [31:0] swap_bytes32(logic [31:0] v);
    return {<<8{v}};
  endfunction

  function automatic logic is_exec(ttyp_e t);
    return t == TtUntransRx || t == TtTransRx;
  endfunction
  function automatic logic is_write(ttyp_e t);
    return t == TtUntransWr || t == TtTransWr;
  endfunction
  function automatic logic is_untranslated(ttyp_e t);
    return t == TtUntransRx || t == TtUntransRd || t == TtUntransWr;
  endfunction

  /// The type of access that decides between causes (IOMMU §2.6 for a translation request).
  function automatic ttyp_e access_type(iommu_cfg_t cfg, tr_req_t req);
    if (req.ttyp != TtAtsReq || !cfg.ats_access_by_request) return req.ttyp;
    return !req.no_write ? TtTransWr : req.pid_valid && req.ats_exec ? TtTransRx : TtTransRd;
  endfunction

  function automatic cause_t page_fault(ttyp_e t);
    return is_exec(t) ? CauseInstrPage : is_write(t) ? CauseWritePage : CauseReadPage;
  endfunction
  function automatic cause_t access_fault(ttyp_e t);
    return is_exec(t) ? CauseInstrAccess : is_write(t) ? CauseWriteAccess : CauseReadAccess;
  endfunction

  function automatic cause_t guest_page_fault(ttyp_e t);
    return is_exec(t) ? CauseInstrGuestPage : is_write(t) ? CauseWriteGuestPage :
           CauseReadGuestPage;
  endfunction
  /// Cause of a walk's end, in the first stage or in the second.
  function automatic cause_t walk_cause(walk_e result, ttyp_e t, logic second);
    unique case (result)
      WkOk:      return CauseNone;
      WkPage:    return second ? guest_page_fault(t) : page_fault(t);
      WkGuest:   return guest_page_fault(t);
      WkCorrupt: return CausePtCorrupt;
      default:   return access_fault(t);
    endcase
  endfunction
  function automatic logic is_translated(ttyp_e t);
    return t == TtTransRx || t == TtTransRd || t == TtTransWr;
  endfunction

  /// Is the page accessible with this privilege (IOMMU §2.2.4, ENS and SUM)? An execute wish of a
  /// translation request does not decide about the page.
  function automatic logic privilege_permits(logic u, acc_t acc);
    return acc.priv ? !u || (acc.sum && (acc.probe || !acc.exec)) : u;
  endfunction

  /// May code be fetched from the page? Never from user pages with supervisor privilege.
  function automatic logic exec_permits(leaf_t leaf, acc_t acc);
    return leaf.x && !(acc.priv && leaf.u);
  endfunction

  /// Does the leaf give all that the access wants? Read-for-execute needs X, as an instruction
  /// fetch does, and R if `execute_needs_read`.
  function automatic logic leaf_permits(iommu_cfg_t cfg, leaf_t leaf, acc_t acc);
    logic [2:0] lacks;
    lacks = {!leaf.r, !leaf.w, !exec_permits(leaf, acc)};
    if (acc.probe) lacks &= {1'b1, acc.write, acc.exec};
    else lacks &= acc.exec ? {cfg.execute_needs_read, 2'b01} : acc.write ? 3'b010 : 3'b100;
    return privilege_permits(leaf.u, acc) && lacks == '0;
  endfunction

  /// The IOVA as a fault record reports it.
  function automatic logic [63:0] iotval(iommu_cfg_t cfg, tr_req_t req);
    return {req.iova[63:12], cfg.iotval_page_offset ? req.iova[11:0] : 12'd0};
  endfunction

  /// Reported although DC.tc.DTF is 1 (IOMMU §3.2, last column of the CAUSE table).
  function automatic logic cause_ignores_dtf(cause_t c);
    return (c >= CauseAllDisallowed && c <= CauseDdtMisconfig) || c == CauseDdtCorrupt ||
           c == CauseInternal || c == CauseMsiWrite;
  endfunction

  /// How the bridge answers a faulting request. IOMMU §7.3 lets the completion be UR or CA.
  function automatic tr_status_e fault_status(iommu_cfg_t cfg, cause_t c);
    return (c >= cfg.completer_abort[0] && c <= cfg.completer_abort[1]) ? TrCa : TrUr;
  endfunction

  /// How a translation request that meets a fault is answered (IOMMU §2.6). TrOk is a completion
  /// that grants nothing; it is not reported.
  function automatic tr_status_e ats_status(iommu_cfg_t cfg, cause_t c);
    if (c >= CauseAllDisallowed && c <= CauseTypeDisallowed) return TrUr;
    if (!cfg.ats_corruption_aborts && c >= CauseDdtCorrupt && c <= CausePtCorrupt) return TrUr;
    if (c inside {CauseInstrPage, CauseReadPage, CauseWritePage, CauseInstrGuestPage,
                  CauseReadGuestPage, CauseWriteGuestPage, CausePdtInvalid,
                  CauseMsiPteInvalid}) return TrOk;
    return TrCa;
  endfunction
endpackage
