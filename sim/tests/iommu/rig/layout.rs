//! The packed structs at the ports: `rtl/iommu/iommu_pkg.sv`.

use crate::bench::{get, put};

/// At the port in place of a process_id that is not valid: nothing may depend on it.
const NO_PROCESS: u32 = 0xa_5a5a;

/// Transaction types (IOMMU §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttyp {
    UntransRx = 1,
    UntransRd = 2,
    UntransWr = 3,
    Reserved = 4,
    TransRx = 5,
    TransRd = 6,
    TransWr = 7,
    AtsReq = 8,
}

/// `tr_req_t`.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub ttyp: Ttyp,
    pub device_id: u32,
    pub process_id: Option<u32>,
    pub privileged: bool,
    pub iova: u64,
    pub no_write: bool,
    pub ats_exec: bool,
}

impl Request {
    pub const fn new(ttyp: Ttyp, device_id: u32, iova: u64) -> Self {
        Self {
            ttyp,
            device_id,
            process_id: None,
            privileged: false,
            iova,
            no_write: false,
            ats_exec: false,
        }
    }

    pub const fn of(self, process_id: u32) -> Self {
        Self {
            process_id: Some(process_id),
            ..self
        }
    }

    pub const fn privileged(self) -> Self {
        Self {
            privileged: true,
            ..self
        }
    }

    pub(super) fn drive(&self, tag: u64, words: &mut [u32]) {
        self.put(tag, words, 0);
    }

    fn put(&self, tag: u64, words: &mut [u32], at: usize) {
        put(words, at, 5, tag);
        put(words, at + 5, 64, self.iova);
        put(words, at + 69, 1, self.privileged.into());
        put(
            words,
            at + 70,
            20,
            self.process_id.unwrap_or(NO_PROCESS).into(),
        );
        put(words, at + 90, 1, self.process_id.is_some().into());
        put(words, at + 91, 24, self.device_id.into());
        put(words, at + 115, 6, self.ttyp as u64);
        put(words, at + 121, 1, self.ats_exec.into());
        put(words, at + 122, 1, self.no_write.into());
    }
}

/// Fields of a Translation Completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ats {
    pub r: bool,
    pub w: bool,
    pub x: bool,
    pub u: bool,
    pub n: bool,
    pub global: bool,
    pub privileged: bool,
    pub cxl_io: bool,
}

/// `tr_rsp_t`.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub tag: u64,
    /// 0 done, 1 UR, 2 CA.
    pub status: u64,
    pub cause: u64,
    pub pbmt: u64,
    /// With the bits above it of a guest address.
    pub spa: u64,
    pub size: u64,
    pub is_gpa: bool,
    pub is_msi: bool,
    pub is_mrif: bool,
    pub dtf: bool,
    pub mrif: u64,
    pub notice: u64,
    pub notice_id: u64,
    pub rcid: u64,
    pub mcid: u64,
    pub ats: Ats,
}

impl Answer {
    pub(super) fn decode(w: &[u32]) -> Self {
        let bit = |at| get(w, at, 1) == 1;
        Self {
            spa: get(w, 0, 56) | get(w, 188, 8) << 56,
            pbmt: get(w, 56, 2),
            cause: get(w, 58, 12),
            status: get(w, 70, 2),
            tag: get(w, 72, 5),
            notice_id: get(w, 77, 11),
            notice: get(w, 88, 44) << 12,
            mrif: get(w, 132, 47) << 9,
            is_mrif: bit(180),
            dtf: bit(179),
            is_msi: bit(181),
            size: 1 << get(w, 182, 6),
            is_gpa: bit(196),
            ats: Ats {
                cxl_io: bit(197),
                privileged: bit(198),
                global: bit(199),
                n: bit(200),
                u: bit(201),
                x: bit(202),
                w: bit(203),
                r: bit(204),
            },
            mcid: get(w, 205, 12),
            rcid: get(w, 217, 12),
        }
    }
}

/// `mrif_req_t`.
#[derive(Clone, Copy, Debug)]
pub struct Mrif {
    pub request: Request,
    pub answer: Answer,
    pub data: u32,
}

impl Mrif {
    pub(super) fn drive(&self, words: &mut [u32]) {
        put(words, 0, 32, self.data.into());
        put(words, 32, 11, self.answer.notice_id);
        put(words, 43, 44, self.answer.notice >> 12);
        put(words, 87, 47, self.answer.mrif >> 9);
        put(words, 134, 12, self.answer.mcid);
        put(words, 146, 12, self.answer.rcid);
        put(words, 158, 1, self.answer.dtf.into());
        self.request.put(0, words, 159);
    }
}

/// A record of the fault queue (IOMMU §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub cause: u64,
    pub ttyp: u64,
    pub device_id: u64,
    pub process_id: Option<u64>,
    pub privileged: bool,
    pub iotval: u64,
    pub iotval2: u64,
}

impl Record {
    pub(super) fn decode(w: [u64; 4]) -> Self {
        assert_eq!(w[1], 0, "reserved");
        Self {
            cause: w[0] & 0xfff,
            ttyp: w[0] >> 34 & 0x3f,
            device_id: w[0] >> 40,
            process_id: (w[0] >> 32 & 1 == 1).then_some(w[0] >> 12 & 0xf_ffff),
            privileged: w[0] >> 33 & 1 == 1,
            iotval: w[2],
            iotval2: w[3],
        }
    }
}

/// `msg_in_t`.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// Page Request or Stop Marker.
    Page {
        device_id: u32,
        process_id: Option<u32>,
        privileged: bool,
        exec: bool,
        /// R, W and L.
        rwl: [bool; 3],
        prgi: u64,
        addr: u64,
    },
    /// Invalidate Completion.
    Completion {
        device_id: u32,
        itags: u64,
        count: u64,
    },
}

impl Message {
    pub(super) fn drive(&self, words: &mut [u32]) {
        words.fill(0);
        match *self {
            Self::Page {
                device_id,
                process_id,
                privileged,
                exec,
                rwl: [r, w, l],
                prgi,
                addr,
            } => {
                put(words, 35, 52, addr >> 12);
                put(words, 87, 9, prgi);
                for (i, bit) in [l, w, r, exec, privileged].into_iter().enumerate() {
                    put(words, 96 + i, 1, bit.into());
                }
                put(words, 101, 20, process_id.unwrap_or(NO_PROCESS).into());
                put(words, 121, 1, process_id.is_some().into());
                put(words, 122, 24, device_id.into());
            }
            Self::Completion {
                device_id,
                itags,
                count,
            } => {
                put(words, 0, 3, count);
                put(words, 3, 32, itags);
                put(words, 122, 24, device_id.into());
                put(words, 146, 1, 1);
            }
        }
    }
}

/// `msg_out_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Invalidate {
        device_id: u64,
        process_id: Option<u64>,
        itag: u64,
        body: u64,
    },
    Response {
        device_id: u64,
        process_id: Option<u64>,
        prgi: u64,
        code: u64,
    },
}

impl Sent {
    pub(super) fn decode(w: &[u32]) -> Self {
        let device_id = get(w, 103, 24);
        let process_id = (get(w, 102, 1) == 1).then_some(get(w, 82, 20));
        if get(w, 127, 1) == 1 {
            Self::Response {
                device_id,
                process_id,
                prgi: get(w, 4, 9),
                code: get(w, 0, 4),
            }
        } else {
            Self::Invalidate {
                device_id,
                process_id,
                itag: get(w, 77, 5),
                body: get(w, 13, 64),
            }
        }
    }
}
