//! First and second stage (Privileged specification, "Virtual Address Translation Process" and
//! "Two-Stage Address Translation").

use tlproof_pcie::PhysAddr;

use super::pte::Pte;
use super::{Access, Entry, Format, Space, Step, Stop, Tables, Walk, fault, stop};
use crate::iommu::context::{DeviceContext, root};
use crate::iommu::{CleanPage, MemoryFault, Permissions, StageLeaf, Update};

/// The end of a stage.
#[derive(Clone, Copy)]
pub(super) struct Leaf {
    /// Where the address went.
    pub addr: u64,
    /// Logarithm of the size of the page; 64 if the stage is Bare.
    pub bits: u32,
    pub pbmt: u64,
    pub allowed: Permissions,
    pub global: bool,
}

impl Leaf {
    /// A stage that is Bare.
    const fn identity(addr: u64) -> Self {
        Self {
            addr,
            bits: 64,
            pbmt: 0,
            allowed: Permissions::ALL,
            global: false,
        }
    }

    pub const fn is_identity(&self) -> bool {
        self.bits == 64
    }

    /// The page-table entry, unless the stage is Bare.
    pub const fn stage(&self) -> Option<StageLeaf> {
        if self.is_identity() {
            return None;
        }
        Some(StageLeaf {
            size_log2: self.bits,
            pbmt: self.pbmt,
        })
    }
}

/// The first stage of a request.
pub(super) struct FirstStage {
    /// `iosatp`: mode and root.
    pub fsc: u64,
    pub pscid: u32,
    /// The request has supervisor privilege.
    pub supervisor: bool,
    pub sum: bool,
}

impl FirstStage {
    pub const BARE: Self = Self {
        fsc: 0,
        pscid: 0,
        supervisor: false,
        sum: false,
    };
}

/// Why the second stage translates an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The access itself.
    Access {
        /// The first stage lets it write.
        writable: bool,
    },
    /// A process-directory entry is read.
    Directory,
    /// A first-stage PTE is read; with the address space's root page it may be part of a cached
    /// context.
    ReadPte { root: bool },
    /// A first-stage PTE gets its A and D bits.
    UpdatePte,
}

impl Purpose {
    /// Bits 1:0 of `iotval2` (IOMMU §3.2).
    const fn flags(self) -> u64 {
        match self {
            Self::Access { .. } => 0,
            Self::Directory | Self::ReadPte { .. } => 1,
            Self::UpdatePte => 3,
        }
    }
}

/// What a leaf must do about its A and D bits.
struct Touch {
    write: bool,
    enabled: bool,
}

impl Touch {
    const fn needed(&self, pte: Pte) -> bool {
        !pte.accessed() || self.write && !pte.dirty()
    }
}

impl<T: Tables> Walk<'_, T> {
    /// An entry, and the doubleword that holds it.
    fn pte(&mut self, entry: Entry, format: Format, addr: u64) -> Step<(u64, Pte)> {
        match self.load::<1>(entry, addr & !7) {
            Ok([word]) => Ok((word, format.decode(word))),
            Err(e) => Err(self.table_fault(e)),
        }
    }

    const fn table_fault(&self, e: MemoryFault) -> Stop {
        match e {
            MemoryFault::Access => stop(self.access.access_fault(), "Privileged §VATP step 2"),
            MemoryFault::Poison => stop(274, "IOMMU §7.4"),
        }
    }

    /// Sets A, and D for a write. False if the entry changed meanwhile.
    fn touch(&mut self, format: Format, addr: u64, word: u64, pte: Pte) -> Step<bool> {
        let (addr, new) = (addr & !7, format.replace(word, pte));
        let done = self.tables.update(addr, word, new).map_err(|e| match e {
            MemoryFault::Access => stop(
                self.access.access_fault(),
                "Privileged §VATP step 9 (store to the PTE)",
            ),
            MemoryFault::Poison => stop(274, "IOMMU §7.4"),
        })?;
        if done {
            self.updates.push(Update {
                addr: PhysAddr(addr),
                old: word,
                new,
            });
        }
        Ok(done)
    }

    /// Whether an ATS translation request makes its leaf dirty, or is refused for a clean one: it may
    /// write, and the page lets it.
    fn probe_writes(&self, writable: bool, enabled: bool) -> bool {
        !self.request.ats.no_write
            && match self.choices.ats_clean_page {
                CleanPage::NoAccess if !enabled => true,
                CleanPage::ReadOnly if !enabled => false,
                _ => writable,
            }
    }

    /// What a leaf lets a request do; `None` if not what it asks for.
    fn allowed(&self, pte: Pte) -> Option<Permissions> {
        let has = pte.permissions();
        let asked = match self.access {
            _ if self.probe => true,
            Access::Read => has.read,
            Access::Write => has.write,
            Access::Execute => has.execute && (has.read || !self.choices.execute_needs_read),
        };
        asked.then_some(has)
    }

    /// Translates an IOVA to a guest address.
    pub(super) fn first_stage(
        &mut self,
        dc: &DeviceContext,
        first: &FirstStage,
        iova: u64,
    ) -> Step<Leaf> {
        if first.fsc >> 60 == 0 {
            return Ok(Leaf::identity(iova));
        }
        let space = Space {
            gscid: dc.active_gscid(),
            pscid: first.pscid,
        };
        let fsc = self.tables.first_stage(space, first.fsc);
        self.pscid = Some(first.pscid);
        let sv32 = dc.sxl();
        let page_fault = self.access.page_fault();
        let (levels, index) = if sv32 {
            (2, 10)
        } else {
            ((fsc >> 60) as u32 - 5, 9)
        };
        if sv32 {
            if iova >> 32 != 0 {
                return fault(page_fault, "IOMMU §2.1.3.1 (SXL, IOVA beyond bit 31)");
            }
        } else {
            let unused = 64 - (12 + 9 * levels);
            if ((iova << unused) as i64 >> unused) as u64 != iova {
                return fault(page_fault, "Privileged Sv39/48/57: non-canonical address");
            }
        }
        let mut table = root(fsc);
        let mut global = false;
        let size = if sv32 { 4 } else { 8 };
        for level in (0..levels).rev() {
            let vpn = iova >> (12 + index * level) & ((1 << index) - 1);
            let at = table + vpn * size;
            let root = level == levels - 1;
            let spa = self.second_stage(dc, at, Purpose::ReadPte { root })?.addr;
            let format = Format::at(sv32, dc.sbe(), spa);
            loop {
                let entry = Entry::FirstStage {
                    space,
                    iova,
                    level,
                    global,
                    format,
                };
                self.loads.first_stage += 1;
                let (word, pte) = self.pte(entry, format, spa)?;
                if let Some(clause) = pte.invalid(self.caps) {
                    return fault(page_fault, clause);
                }
                if !pte.is_leaf() {
                    if pte.bad_pointer() {
                        return fault(
                            page_fault,
                            "Privileged §VATP step 4 (reserved in a pointer)",
                        );
                    }
                    global |= pte.global();
                    table = pte.target();
                    break;
                }
                let bits = pte.leaf_bits(level).or_else(|c| fault(page_fault, c))?;
                let mut allowed = self.first_stage_permissions(first, pte)?;
                let touch = Touch {
                    write: if self.probe {
                        self.probe_writes(pte.permissions().write, dc.sade())
                    } else {
                        self.access == Access::Write
                    },
                    enabled: dc.sade(),
                };
                let mut dirty = pte.dirty();
                if touch.needed(pte) {
                    if !touch.enabled {
                        return fault(page_fault, "IOMMU §2.1.3.1 (SADE is 0)");
                    }
                    // The store to the PTE goes through the second stage as a write.
                    self.second_stage(dc, at, Purpose::UpdatePte)?;
                    if !self.touch(format, spa, word, pte.touched(touch.write))? {
                        continue;
                    }
                    dirty |= touch.write;
                }
                allowed.write &= dirty;
                let offset = (1u64 << bits) - 1;
                return Ok(Leaf {
                    addr: pte.target() & !offset | iova & offset,
                    bits,
                    pbmt: pte.pbmt(),
                    allowed,
                    global: global || pte.global(),
                });
            }
        }
        fault(page_fault, "Privileged §VATP step 4 (no leaf)")
    }

    /// Privileged §VATP steps 6 to 8, and IOMMU §2.2.3 for ENS and SUM.
    fn first_stage_permissions(&self, first: &FirstStage, pte: Pte) -> Step<Permissions> {
        let page_fault = self.access.page_fault();
        let execute = self.access == Access::Execute && !self.probe;
        let mut user_code = false;
        match (first.supervisor, pte.user()) {
            (false, false) => return fault(page_fault, "Privileged §VATP: U"),
            (true, true) if !first.sum => return fault(page_fault, "IOMMU §2.2.3.1 (SUM)"),
            (true, true) if execute => {
                return fault(page_fault, "IOMMU §2.2.3.1 (execute from user pages)");
            }
            (true, true) => user_code = true,
            _ => {}
        }
        let Some(mut allowed) = self.allowed(pte) else {
            return fault(
                page_fault,
                self.access_clause(
                    "Privileged §VATP: X",
                    "Privileged §VATP: R",
                    "Privileged §VATP: W",
                ),
            );
        };
        // Never execute from pages of a user with supervisor privilege.
        allowed.execute &= !user_code;
        Ok(allowed)
    }

    const fn access_clause(
        &self,
        execute: &'static str,
        read: &'static str,
        write: &'static str,
    ) -> &'static str {
        match self.access {
            Access::Execute => execute,
            Access::Read => read,
            Access::Write => write,
        }
    }

    /// Translates a guest address to a supervisor address. The request counts as one of user
    /// privilege (IOMMU §2.3).
    pub(super) fn second_stage(
        &mut self,
        dc: &DeviceContext,
        gpa: u64,
        purpose: Purpose,
    ) -> Step<Leaf> {
        if dc.iohgatp_mode() == 0 {
            return Ok(Leaf::identity(gpa));
        }
        self.loads.second_stage_walks += 1;
        let offset = if self.choices.iotval2_page_offset {
            3
        } else {
            0xfff
        };
        let guest_fault = |walk: &Self, clause| {
            Err(Stop {
                cause: walk.access.guest_page_fault(),
                clause,
                iotval2: gpa & !offset | purpose.flags(),
            })
        };
        let iohgatp = self.tables.second_stage(dc.iohgatp);
        let sv32 = self.fctl >> 2 & 1 == 1;
        let big = self.fctl & 1 == 1;
        let (levels, index, size) = if sv32 {
            (2, 10, 4)
        } else {
            ((iohgatp >> 60) as u32 - 5, 9, 8)
        };
        if dc.sxl() && gpa >> 34 != 0 {
            return guest_fault(self, "IOMMU §2.1.3.1 (SXL, GPA beyond bit 33)");
        }
        if gpa >> (14 + index * levels) != 0 {
            return guest_fault(self, "Privileged SvNx4: guest address too wide");
        }
        let mut table = root(iohgatp);
        for level in (0..levels).rev() {
            // The root table has four times the entries.
            let extra = if level == levels - 1 { 2 } else { 0 };
            let vpn = gpa >> (12 + index * level) & ((1 << (index + extra)) - 1);
            let at = table + vpn * size;
            let format = Format::at(sv32, big, at);
            loop {
                let entry = Entry::SecondStage {
                    gscid: dc.gscid(),
                    gpa,
                    level,
                    format,
                    directory_of: matches!(
                        purpose,
                        Purpose::Directory | Purpose::ReadPte { root: true }
                    )
                    .then_some(self.request.device_id),
                };
                self.loads.second_stage += 1;
                let (word, pte) = self.pte(entry, format, at)?;
                if let Some(clause) = pte.invalid(self.caps) {
                    return guest_fault(self, clause);
                }
                if !pte.is_leaf() {
                    if pte.bad_pointer() {
                        return guest_fault(
                            self,
                            "Privileged §VATP step 4 (reserved in a pointer)",
                        );
                    }
                    table = pte.target();
                    break;
                }
                let bits = match pte.leaf_bits(level) {
                    Ok(bits) => bits,
                    Err(clause) => return guest_fault(self, clause),
                };
                if !pte.user() {
                    return guest_fault(self, "Privileged SvNx4: U");
                }
                let has = pte.permissions();
                let allowed = match purpose {
                    Purpose::Access { .. } => self.allowed(pte),
                    Purpose::UpdatePte => has.write.then_some(has),
                    Purpose::Directory | Purpose::ReadPte { .. } => has.read.then_some(has),
                };
                let Some(mut allowed) = allowed else {
                    return guest_fault(self, "Privileged, two-stage translation: permissions");
                };
                let touch = Touch {
                    write: match purpose {
                        Purpose::Access { writable } if self.probe => {
                            self.probe_writes(writable && has.write, dc.gade())
                        }
                        Purpose::Access { .. } => self.access == Access::Write,
                        Purpose::UpdatePte => true,
                        Purpose::Directory | Purpose::ReadPte { .. } => false,
                    },
                    enabled: dc.gade(),
                };
                let mut dirty = pte.dirty();
                if touch.needed(pte) {
                    if !touch.enabled {
                        return guest_fault(self, "IOMMU §2.1.3.1 (GADE is 0)");
                    }
                    if !self.touch(format, at, word, pte.touched(touch.write))? {
                        continue;
                    }
                    dirty |= touch.write;
                }
                allowed.write &= dirty;
                let offset = (1u64 << bits) - 1;
                return Ok(Leaf {
                    addr: pte.target() & !offset | gpa & offset,
                    bits,
                    pbmt: pte.pbmt(),
                    allowed,
                    global: false,
                });
            }
        }
        guest_fault(self, "Privileged §VATP step 4 (no leaf)")
    }
}
