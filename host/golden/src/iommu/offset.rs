//! Offsets of registers (IOMMU §5.2).

/// `capabilities`.
pub const CAPABILITIES: u32 = 0;
/// `fctl`.
pub const FCTL: u32 = 8;
/// `ddtp`.
pub const DDTP: u32 = 16;
/// `cqb`.
pub const CQB: u32 = 24;
/// `cqh`.
pub const CQH: u32 = 32;
/// `cqt`.
pub const CQT: u32 = 36;
/// `fqb`.
pub const FQB: u32 = 40;
/// `fqh`.
pub const FQH: u32 = 48;
/// `fqt`.
pub const FQT: u32 = 52;
/// `pqb`.
pub const PQB: u32 = 56;
/// `pqh`.
pub const PQH: u32 = 64;
/// `pqt`.
pub const PQT: u32 = 68;
/// `cqcsr`.
pub const CQCSR: u32 = 72;
/// `fqcsr`.
pub const FQCSR: u32 = 76;
/// `pqcsr`.
pub const PQCSR: u32 = 80;
/// `ipsr`.
pub const IPSR: u32 = 84;
/// `iocountovf`.
pub const IOCOUNTOVF: u32 = 88;
/// `iocountinh`.
pub const IOCOUNTINH: u32 = 92;
/// `iohpmcycles`.
pub const IOHPMCYCLES: u32 = 96;
/// `iohpmctr1`; the others follow, 8 bytes each.
pub const IOHPMCTR: u32 = 104;
/// `iohpmevt1`; the others follow, 8 bytes each.
pub const IOHPMEVT: u32 = 352;
/// `tr_req_iova`.
pub const TR_REQ_IOVA: u32 = 600;
/// `tr_req_ctl`.
pub const TR_REQ_CTL: u32 = 608;
/// `tr_response`.
pub const TR_RESPONSE: u32 = 616;
/// `iommu_qosid`.
pub const QOSID: u32 = 624;
/// `icvec`.
pub const ICVEC: u32 = 760;
/// `msi_cfg_tbl`: 16 entries of 16 bytes.
pub const MSI_CFG_TBL: u32 = 768;

/// Starts of registers and of tables of them, in order.
const NAMES: [(u32, &str); 28] = [
    (CAPABILITIES, "capabilities"),
    (FCTL, "fctl"),
    (FCTL + 4, "custom"),
    (DDTP, "ddtp"),
    (CQB, "cqb"),
    (CQH, "cqh"),
    (CQT, "cqt"),
    (FQB, "fqb"),
    (FQH, "fqh"),
    (FQT, "fqt"),
    (PQB, "pqb"),
    (PQH, "pqh"),
    (PQT, "pqt"),
    (CQCSR, "cqcsr"),
    (FQCSR, "fqcsr"),
    (PQCSR, "pqcsr"),
    (IPSR, "ipsr"),
    (IOCOUNTOVF, "iocountovf"),
    (IOCOUNTINH, "iocountinh"),
    (IOHPMCYCLES, "iohpmcycles"),
    (IOHPMCTR, "iohpmctr"),
    (IOHPMEVT, "iohpmevt"),
    (TR_REQ_IOVA, "tr_req_iova"),
    (TR_REQ_CTL, "tr_req_ctl"),
    (TR_RESPONSE, "tr_response"),
    (QOSID, "iommu_qosid"),
    (ICVEC, "icvec"),
    (MSI_CFG_TBL, "msi_cfg_tbl"),
];

/// The name of the register at an offset; bytes behind the start of it, or of the table that it is in,
/// are added.
#[must_use]
pub fn name(offset: u32) -> String {
    let before = NAMES.iter().rfind(|(start, _)| *start <= offset);
    match before {
        Some((start, name)) if *start == offset => (*name).to_owned(),
        Some((start, name)) => format!("{name} + {}", offset - start),
        None => offset.to_string(),
    }
}
