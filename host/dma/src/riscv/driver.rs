//! The driver: probe, domains, attachment, invalidation.

mod bring_up;

use std::collections::{BTreeMap, BTreeSet};

use tlproof_pcie::{Bdf, PhysAddr};

use bring_up::{directory_root, enable, interrupts, little_endian, pick_mode};

use super::{
    command::Command,
    directory::{Context, Directory, Slot},
    pgtable::{Mode, PageTable, corrupt_pbmt, leaf_bits},
    queue::{CommandQueue, FaultQueue},
    regs::{Capabilities, FCTL_WSI, Regs, offset},
};
use crate::{
    iommu::{DomainId, Gather, IommuDriver, IommuError, Prot},
    machine::Machine,
    pages::{PAGE_SIZE, PagePool},
};

const DDTP_BARE: u64 = 1;
/// PSCIDs have 20 bits, and 0 is not given out.
const PSCID_LAST: u32 = (1 << 20) - 1;
/// More single-page invalidations than this are one of everything.
const MAX_PAGE_COMMANDS: u64 = 512;

/// Where the unit sends its interrupts: vector `n` writes `data + n` to `addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiTarget {
    /// Address of the interrupt file, a multiple of 4.
    pub addr: PhysAddr,
    /// Data of vector 0.
    pub data: u32,
    /// Vectors, 1 to 4.
    pub vectors: u8,
}

/// Faults that the driver commits on request, to show that a checker sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// The next invalidation of unmapped pages is not sent; its fence is.
    pub drop_invalidation_once: bool,
    /// The next mapping gets a wrong memory type (with Svpbmt).
    pub corrupt_pbmt_once: bool,
    /// A mapping over another replaces it instead of being refused.
    pub overwrite: bool,
}

/// How to run the unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directory levels, 1 to 3; `None` takes the most that the unit offers.
    pub ddt_levels: Option<u8>,
    /// Page-table mode; `None` takes the widest that the unit offers.
    pub address_mode: Option<Mode>,
    /// log2 of the command queue's entries.
    pub command_queue_log2: u8,
    /// log2 of the fault queue's entries.
    pub fault_queue_log2: u8,
    /// Use page-based memory types if the unit has them.
    pub svpbmt: bool,
    /// The page-table code refuses the memory types that the driver asks of it: with a unit that
    /// has them, no paging domain can be made ([`Quirks::svpbmt_refused`](crate::Quirks)).
    pub svpbmt_refused: bool,
    /// Interrupts; `None` leaves all vectors masked.
    pub msi: Option<MsiTarget>,
    /// Cycles after which the unit is given up.
    pub timeout: u64,
    /// Deliberate faults.
    pub defects: Defects,
}

impl Default for Options {
    /// Queues of 8192 commands and 4096 fault records, as Linux takes.
    fn default() -> Self {
        Self {
            ddt_levels: None,
            address_mode: None,
            command_queue_log2: 13,
            fault_queue_log2: 12,
            svpbmt: true,
            svpbmt_refused: false,
            msi: None,
            timeout: 1_000_000,
            defects: Defects::default(),
        }
    }
}

#[derive(Debug)]
struct Domain {
    pscid: u32,
    table: PageTable,
    devices: BTreeSet<Bdf>,
}

/// A unit in operation.
#[derive(Debug)]
pub struct RiscvIommu {
    regs: Regs,
    pool: PagePool,
    capabilities: Capabilities,
    directory: Directory,
    commands: CommandQueue,
    faults: FaultQueue,
    mode: Mode,
    svpbmt: bool,
    svpbmt_refused: bool,
    domains: BTreeMap<DomainId, Domain>,
    next_domain: u32,
    pscids: BTreeSet<u32>,
    faults_lost: bool,
    /// Deliberate faults that have not been committed yet.
    pub defects: Defects,
}

impl RiscvIommu {
    /// Takes over the unit whose registers (BAR0) are at `regs`, memory decoding and bus
    /// mastering being on. All devices are blocked until they are attached.
    ///
    /// # Errors
    /// The unit is in use, does not come ready, or lacks what the options ask for.
    pub fn probe(
        m: &mut dyn Machine,
        regs: PhysAddr,
        mut pool: PagePool,
        options: &Options,
    ) -> Result<Self, IommuError> {
        let regs = Regs {
            base: regs,
            timeout: options.timeout,
        };
        let capabilities = Capabilities::from_bits_retain(regs.read64(m, offset::CAPABILITIES)?);
        let fctl = regs.read32(m, offset::FCTL)?;
        // A PCI function interrupts by message: IGS must be MSI or both.
        if !matches!(capabilities.igs(), 0 | 2) {
            return Err(IommuError::NoDevice);
        }
        if fctl & FCTL_WSI != 0 {
            regs.write32(m, offset::FCTL, fctl & !FCTL_WSI)?;
        }
        let mode = pick_mode(capabilities, options.address_mode)?;

        let ddtp = regs.read64(m, offset::DDTP)?;
        if ddtp & super::regs::DDTP_BUSY != 0 || ddtp & 15 > DDTP_BARE {
            return Err(IommuError::Busy);
        }
        little_endian(&regs, m, capabilities)?;
        interrupts(&regs, m, options.msi)?;
        let root = directory_root(&regs, m, &mut pool)?;
        let mut commands = CommandQueue::new(regs, m, &mut pool, options.command_queue_log2)?;
        let faults = FaultQueue::new(regs, m, &mut pool, options.fault_queue_log2)?;
        commands.start(m)?;
        faults.start(m)?;
        let levels = enable(&regs, m, root, options.ddt_levels)?;
        commands.run(m, &[Command::inval_ddt(), Command::inval_all()])?;
        Ok(Self {
            regs,
            pool,
            capabilities,
            directory: Directory {
                root,
                levels,
                extended: capabilities.contains(Capabilities::MSI_FLAT),
            },
            commands,
            faults,
            mode,
            svpbmt: options.svpbmt && capabilities.contains(Capabilities::SVPBMT),
            svpbmt_refused: options.svpbmt_refused,
            domains: BTreeMap::new(),
            next_domain: 1,
            pscids: BTreeSet::new(),
            faults_lost: false,
            defects: options.defects,
        })
    }

    /// What the unit can do.
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Directory levels in use.
    #[must_use]
    pub const fn ddt_levels(&self) -> u8 {
        self.directory.levels
    }

    /// PSCID of a domain.
    #[must_use]
    pub fn pscid(&self, domain: DomainId) -> Option<u32> {
        Some(self.domains.get(&domain)?.pscid)
    }

    /// Takes the waiting fault records.
    ///
    /// # Errors
    /// The unit did not answer.
    pub fn fault_records(&mut self, m: &mut dyn Machine) -> Result<Vec<[u64; 4]>, IommuError> {
        let (records, lost) = self.faults.drain(m)?;
        self.faults_lost |= lost;
        Ok(records)
    }

    /// Whether the fault queue ever overflowed or could not be written.
    #[must_use]
    pub const fn faults_lost(&self) -> bool {
        self.faults_lost
    }

    /// Leaves the unit passing everything through, queues off.
    ///
    /// # Errors
    /// The unit does not answer.
    pub fn shutdown(&mut self, m: &mut dyn Machine) -> Result<(), IommuError> {
        self.regs.write64(m, offset::DDTP, DDTP_BARE)?;
        self.regs.ddtp(m)?;
        self.queues_off(m)
    }

    /// Leaves the unit blocking everything, caches empty, queues off.
    ///
    /// # Errors
    /// The unit does not answer or does not complete its commands.
    pub fn remove(&mut self, m: &mut dyn Machine) -> Result<(), IommuError> {
        self.regs.write64(m, offset::DDTP, 0)?;
        self.regs.ddtp(m)?;
        self.commands
            .run(m, &[Command::inval_ddt(), Command::inval_all()])?;
        self.queues_off(m)
    }

    fn queues_off(&self, m: &mut dyn Machine) -> Result<(), IommuError> {
        for csr in [offset::CQCSR, offset::FQCSR, offset::PQCSR] {
            self.regs.write32(m, csr, 0)?;
        }
        for csr in [offset::CQCSR, offset::FQCSR] {
            self.regs.queue(m, csr)?;
        }
        Ok(())
    }

    fn slot(&mut self, m: &mut dyn Machine, device: Bdf) -> Result<Slot, IommuError> {
        self.directory.slot(m, &mut self.pool, u32::from(device.0))
    }

    /// Puts a device under a new first stage: the old context is gone from the unit before the
    /// new one is written, so that no mix of the two is ever seen.
    fn update_context(
        &mut self,
        m: &mut dyn Machine,
        device: Bdf,
        slot: Slot,
        new: Context,
    ) -> Result<(), IommuError> {
        let id = u32::from(device.0);
        let inval = |c: Context| match c.fsc {
            0 => Command::inval_all(),
            _ => Command::inval_pscid(c.pscid),
        };
        let mut run = |m: &mut dyn Machine, context| {
            let list = [Command::inval_device(id), inval(context)];
            let list = if mutant!(M35a) { &list[1..] } else { &list };
            self.commands.run(m, list)
        };
        let old = slot.read(m);
        if old.valid {
            slot.invalidate(m);
            run(m, old)?;
        }
        slot.write(m, new);
        run(m, new)
    }

    /// Takes a device out of the domain that it is in, `except` aside; translations of a domain
    /// that no device is left in are dropped.
    fn unlink(
        &mut self,
        m: &mut dyn Machine,
        device: Bdf,
        except: Option<DomainId>,
    ) -> Result<(), IommuError> {
        for (&id, domain) in &mut self.domains {
            if Some(id) != except && domain.devices.remove(&device) && domain.devices.is_empty() {
                self.commands
                    .run(m, &[Command::inval_pscid(domain.pscid)])?;
            }
        }
        Ok(())
    }

    /// Invalidates what `gather` names and frees its tables.
    fn sync(
        &mut self,
        m: &mut dyn Machine,
        domain: DomainId,
        gather: Gather,
        droppable: bool,
    ) -> Result<(), IommuError> {
        let Some(d) = self.domains.get(&domain) else {
            return Err(IommuError::Invalid);
        };
        if let Some((first, last)) = gather.range
            && !d.devices.is_empty()
        {
            let mut list = invalidations(self.capabilities, d.pscid, first, last, &gather);
            if droppable && std::mem::take(&mut self.defects.drop_invalidation_once) {
                list.clear();
            }
            self.commands.run(m, &list)?;
        }
        for table in gather.freelist {
            self.pool.free(table);
        }
        Ok(())
    }
}

/// The commands that cover a gathered range, without the fence.
fn invalidations(
    capabilities: Capabilities,
    pscid: u32,
    first: u64,
    last: u64,
    gather: &Gather,
) -> Vec<Command> {
    let all = vec![Command::inval_pscid(pscid)];
    let (pscid, first) = (
        pscid + u32::from(mutant!(M33a)),
        first + if mutant!(M33b) { PAGE_SIZE } else { 0 },
    );
    let last = last.max(first + PAGE_SIZE - 1);
    let last = if mutant!(M33c) {
        first + (last - first) / 2
    } else {
        last
    };
    let tables = gather.table_levels != 0 && !mutant!(M34);
    let levels = gather.leaf_levels | gather.table_levels;
    if levels == 0 || tables && !capabilities.contains(Capabilities::NL) {
        return all;
    }
    // The smallest naturally aligned power of two that holds the range.
    let log2 = 64 - (first ^ last).leading_zeros();
    if capabilities.contains(Capabilities::S) && (13..64).contains(&log2) {
        let base = first >> log2 << log2;
        return vec![Command::inval_range(pscid, base, log2, tables)];
    }
    let stride = PAGE_SIZE << (9 * levels.trailing_zeros());
    let count = (last - first) / stride + 1;
    if count > MAX_PAGE_COMMANDS {
        return all;
    }
    (0..count)
        .map(|i| Command::inval_page(pscid, first + i * stride, tables))
        .collect()
}

impl IommuDriver for RiscvIommu {
    fn page_sizes(&self, domain: DomainId) -> u64 {
        self.domains
            .get(&domain)
            .map_or(0, |d| d.table.page_sizes())
    }

    fn aperture(&self, domain: DomainId) -> (u64, u64) {
        let last = self.domains.get(&domain).map_or(0, |d| d.table.last());
        (0, last)
    }

    fn domain_alloc(&mut self, m: &mut dyn Machine) -> Result<DomainId, IommuError> {
        if self.svpbmt && self.svpbmt_refused {
            return Err(IommuError::Unsupported);
        }
        let pscid = (1..=PSCID_LAST)
            .zip(self.pscids.iter().map(Some).chain(std::iter::repeat(None)))
            .find(|&(n, used)| used != Some(&n))
            .map(|(n, _)| n)
            .ok_or(IommuError::NoMemory)?;
        let table = PageTable::new(m, &mut self.pool, self.mode)?;
        self.pscids.insert(pscid);
        let id = DomainId(self.next_domain);
        self.next_domain += 1;
        self.domains.insert(
            id,
            Domain {
                pscid,
                table,
                devices: BTreeSet::new(),
            },
        );
        Ok(id)
    }

    fn domain_free(&mut self, m: &mut dyn Machine, domain: DomainId) {
        // Tables that a device can still reach must not be reused.
        if self
            .domains
            .get(&domain)
            .is_some_and(|d| d.devices.is_empty())
            && let Some(d) = self.domains.remove(&domain)
        {
            self.pscids.remove(&d.pscid);
            d.table.free(m, &mut self.pool);
        }
    }

    fn attach(
        &mut self,
        m: &mut dyn Machine,
        device: Bdf,
        domain: Option<DomainId>,
    ) -> Result<(), IommuError> {
        let slot = self.slot(m, device)?;
        let context = match domain {
            None => Context {
                valid: true,
                pscid: 0,
                fsc: 0,
            },
            Some(id) => {
                let d = self.domains.get_mut(&id).ok_or(IommuError::Invalid)?;
                // Before the context: from its first translation on, unmaps must invalidate.
                d.devices.insert(device);
                Context {
                    valid: true,
                    pscid: d.pscid,
                    fsc: d.table.iosatp(),
                }
            }
        };
        self.update_context(m, device, slot, context)?;
        self.unlink(m, device, domain)
    }

    fn block(&mut self, m: &mut dyn Machine, device: Bdf) -> Result<(), IommuError> {
        let context = Context {
            valid: false,
            pscid: 0,
            fsc: 0,
        };
        let slot = self.slot(m, device)?;
        self.update_context(m, device, slot, context)?;
        self.unlink(m, device, None)
    }

    fn map(
        &mut self,
        m: &mut dyn Machine,
        domain: DomainId,
        iova: u64,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
    ) -> Result<(), IommuError> {
        if !prot.intersects(Prot::READ | Prot::WRITE) {
            return Err(IommuError::Invalid);
        }
        let d = self.domains.get(&domain).ok_or(IommuError::Invalid)?;
        let mut bits = leaf_bits(prot, self.svpbmt)?;
        if std::mem::take(&mut self.defects.corrupt_pbmt_once) {
            bits = corrupt_pbmt(bits, self.svpbmt);
        }
        let mut gather = Gather::default();
        if self.defects.overwrite {
            d.table.unmap(m, iova, size, &mut gather);
        }
        let result = d
            .table
            .map(m, &mut self.pool, iova, phys, size, bits, &mut gather);
        // Invalid entries are never cached, so a mapping needs no command, unless an empty
        // table was replaced or a failure was undone.
        if gather.range.is_some() {
            self.sync(m, domain, gather, false)?;
        }
        result
    }

    fn unmap(
        &mut self,
        m: &mut dyn Machine,
        domain: DomainId,
        iova: u64,
        size: u64,
        gather: &mut Gather,
    ) -> u64 {
        self.domains
            .get(&domain)
            .map_or(0, |d| d.table.unmap(m, iova, size, gather))
    }

    fn iotlb_sync(
        &mut self,
        m: &mut dyn Machine,
        domain: DomainId,
        gather: Gather,
    ) -> Result<(), IommuError> {
        self.sync(m, domain, gather, true)
    }

    fn flush_all(&mut self, m: &mut dyn Machine, domain: DomainId) -> Result<(), IommuError> {
        let d = self.domains.get(&domain).ok_or(IommuError::Invalid)?;
        if d.devices.is_empty() {
            return Ok(());
        }
        let drop = std::mem::take(&mut self.defects.drop_invalidation_once);
        let command = Command::inval_pscid(d.pscid);
        self.commands.run(
            m,
            if drop {
                &[]
            } else {
                std::slice::from_ref(&command)
            },
        )
    }

    fn iova_to_phys(&self, m: &mut dyn Machine, domain: DomainId, iova: u64) -> Option<PhysAddr> {
        Some(self.domains.get(&domain)?.table.lookup(m, iova)?.phys)
    }

    fn leaf_entry(&self, m: &mut dyn Machine, domain: DomainId, iova: u64) -> Option<u64> {
        Some(self.domains.get(&domain)?.table.lookup(m, iova)?.entry)
    }
}

#[cfg(test)]
mod tests;
