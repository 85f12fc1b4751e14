//! A controller that follows a command's pointers by the specification, through the translation
//! and the memory of the fake machine, and says which bytes of physical memory it would access.

use tlproof_pcie::{DmaAddr, PhysAddr};

use crate::{block::testing::Bench, iommu::IommuDriver, machine::Machine};

const PAGE: u64 = 4096;

/// Bytes at consecutive addresses as the controller sees them.
pub type Piece = (u64, u64);

/// Why a controller rejects a command or cannot reach something.
pub type Fault = &'static str;

/// Follows PRP1 and PRP2 of a command (Base Specification 2.0 §4.3.1).
fn prps(b: &mut Bench, cmd: &[u8; 64], len: u64) -> Result<Vec<Piece>, Fault> {
    let (prp1, prp2) = (word(cmd, 24), word(cmd, 32));
    let mut pieces = vec![(prp1, len.min(PAGE - prp1 % PAGE))];
    let mut left = len - pieces[0].1;
    if left == 0 {
        return Ok(pieces);
    }
    if left <= PAGE {
        if prp2 % PAGE != 0 {
            return Err("PRP offset invalid");
        }
        pieces.push((prp2, left));
        return Ok(pieces);
    }
    let mut entry = prp2;
    while left > 0 {
        let value = u64::from_le_bytes(read(b, entry, 8)?.try_into().unwrap());
        if value % PAGE != 0 {
            return Err("PRP offset invalid");
        }
        let last_of_page = entry % PAGE == PAGE - 8;
        if last_of_page && left > PAGE {
            entry = value;
            continue;
        }
        pieces.push((value, left.min(PAGE)));
        left -= left.min(PAGE);
        entry += 8;
    }
    Ok(pieces)
}

/// Follows an SGL from its first descriptor (§4.3.2).
fn sgl(b: &mut Bench, first: &[u8], len: u64) -> Result<Vec<Piece>, Fault> {
    let (mut pieces, mut left) = (Vec::new(), len);
    let mut queue = vec![first.to_vec()];
    while let Some(d) = queue.pop() {
        let (addr, length) = (word(&d, 0), u64::from(word(&d, 8) as u32));
        match d[15] {
            0x00 => {
                let length = length.min(left);
                left -= length;
                pieces.push((addr, length));
            }
            0x30 if queue.is_empty() && pieces.is_empty() => {
                let list = read(b, addr, length)?;
                queue.extend(list.chunks(16).rev().map(<[u8]>::to_vec));
            }
            _ => return Err("SGL descriptor type invalid"),
        }
    }
    if left > 0 {
        return Err("data SGL length invalid");
    }
    Ok(pieces)
}

/// Where the data of a command is.
pub fn data(b: &mut Bench, cmd: &[u8; 64], len: u32) -> Result<Vec<Piece>, Fault> {
    match cmd[1] >> 6 {
        0 => prps(b, cmd, len.into()),
        1 | 2 => sgl(b, &cmd[24..40], len.into()),
        _ => Err("invalid field"),
    }
}

/// Where its metadata is.
pub fn metadata(b: &mut Bench, cmd: &[u8; 64], len: u32) -> Result<Vec<Piece>, Fault> {
    let mptr = word(cmd, 16);
    if cmd[1] >> 6 == 2 {
        let first = read(b, mptr, 16)?;
        return sgl(b, &first, len.into());
    }
    Ok(vec![(mptr, len.into())])
}

/// The physical addresses of pieces, one a byte; a peer's bus address stands for itself.
pub fn reached(b: &mut Bench, pieces: &[Piece]) -> Result<Vec<u64>, Fault> {
    let bytes = pieces.iter().flat_map(|(a, n)| *a..*a + *n);
    bytes.map(|a| translate(b, a)).collect()
}

fn translate(b: &mut Bench, addr: u64) -> Result<u64, Fault> {
    let Some(domain) = b.dma.domain_of(b.dev) else {
        return Ok(addr);
    };
    if b.m.memory_map().aperture.contains(PhysAddr(addr), 1) || addr < 0x4000_0000 {
        // Claimed by a switch or the host bridge's window: a peer's bus address.
        return Ok(addr);
    }
    let iommu = b.dma.iommu().unwrap();
    let phys = iommu.iova_to_phys(&mut b.m, domain, addr);
    phys.map(|p| p.0).ok_or("IOMMU fault")
}

/// Reads descriptors; a device that snoops sees the CPU's cache.
fn read(b: &mut Bench, addr: u64, len: u64) -> Result<Vec<u8>, Fault> {
    let coherent = b.dma.device(b.dev).unwrap().coherent;
    (addr..addr + len)
        .map(|a| {
            if b.dma.describe(b.dev, DmaAddr(a)).is_none() {
                return Err("not promised");
            }
            let phys = translate(b, a)?;
            Ok(if coherent {
                b.m.cpu_read(phys, 1)[0]
            } else {
                b.m.device_read(phys, 1)[0]
            })
        })
        .collect()
}

fn word(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}
