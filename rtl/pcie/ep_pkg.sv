// SPDX-License-Identifier: MIT OR Apache-2.0

/// Types and sizes inside the endpoint (`docs/endpoint.md`).
package ep_pkg;

  /// Read tags, descriptor queue, descriptors under way, completion records, MSI-X vectors.
  localparam int unsigned Tags = 64;
  localparam int unsigned QueueDepth = 32;
  localparam int unsigned Slots = 32;
  localparam int unsigned Records = 64;
  localparam int unsigned Vectors = 8;

  typedef logic [5:0] tag_t;
  typedef logic [4:0] slot_t;
  typedef logic [2:0] vector_t;

  /// DW address in the 1 MiB local memory.
  typedef logic [17:0] mem_dw_t;

  /// Completion status of a descriptor beside the codes of a completion.
  localparam logic [2:0] StatusTimeout = 3'b111;

  /// What becomes of a descriptor when it is complete.
  typedef struct packed {
    logic [15:0] id;
    logic irq;
    vector_t irq_vector;
  } info_t;

  /// What a descriptor asks for.
  typedef struct packed {
    logic [31:0] seed;
    logic [15:0] rid;
    logic [19:0] pasid;
    logic [2:0] tc;
    logic rid_ovr;
    logic er;
    logic pmr;
    logic pasid_valid;
    logic [2:0] attr;  // {IDO, RO, NS}
    logic [1:0] at;
    logic pattern;
    logic write;
    mem_dw_t local_dw;
    logic [20:0] len;
    logic [63:0] addr;
  } transfer_t;

  /// A descriptor as the doorbell queues it.
  typedef struct packed {
    info_t info;
    transfer_t transfer;
  } desc_t;

  /// A completion record: descriptor and worst status.
  typedef struct packed {
    logic [2:0] status;
    logic [15:0] id;
  } record_t;

  /// Where the payload of a TLP comes from.
  typedef enum logic [1:0] {
    SrcNone = 2'd0,  // no payload
    SrcMem = 2'd1,  // local memory
    SrcGen = 2'd2,  // pattern generator
    SrcImm = 2'd3  // at most two DW given with the job
  } src_kind_e;

  /// One TLP to send.
  typedef struct packed {
    tlp_pkg::tlp_head_t head;
    src_kind_e kind;
    logic [10:0] len_dw;  // of the payload, 0 with `SrcNone`
    mem_dw_t local_dw;
    logic [31:0] gen_n;
    logic [31:0] gen_seed;
    logic [63:0] imm;
  } src_job_t;

  /// Where the payload of a received TLP goes.
  typedef struct packed {
    logic en;
    mem_dw_t local_dw;
    logic [10:0] len_dw;
    logic [3:0] first_be;
    logic [3:0] last_be;  // unused with one DW
  } sink_job_t;

  /// What is left of a read: bytes, lower address of the next one, its DW in local memory.
  typedef struct packed {
    logic [12:0] bytes;
    logic [6:0] lower;
    mem_dw_t local_dw;
  } progress_t;

  /// What a read tag belongs to.
  typedef struct packed {
    slot_t slot;
    logic discard;
    logic [15:0] rid;
  } owner_t;

  /// Byte enables from byte `offset` of a DW on.
  function automatic logic [3:0] be_from(logic [1:0] offset);
    return 4'hf << offset;
  endfunction

  /// Byte enables of the last DW of a span that ends `tail` bytes into it (0: at its end).
  function automatic logic [3:0] be_until(logic [1:0] tail);
    return (tail == 2'd0) ? 4'hf : 4'hf >> (3'd4 - {1'b0, tail});
  endfunction

  /// The pattern generator's DW `n` under seed `s`.
  function automatic logic [31:0] pattern(logic [31:0] n, logic [31:0] s);
    logic [31:0] x;
    x = n ^ s;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
  endfunction

endpackage
