//! The device's side of a split virtqueue, by the specification (§2.7), through the translation of
//! the fake machine.

use tlproof_pcie::{DmaAddr, PhysAddr};

use super::super::Virtqueue;
use crate::{block::testing::Bench, iommu::IommuDriver, machine::Machine};

type Fault = &'static str;

pub struct DeviceSide {
    desc: u64,
    avail: u64,
    used: u64,
    num: u16,
    seen: u16,
    done: u16,
}

impl DeviceSide {
    pub fn new(q: &Virtqueue, num: u16) -> Self {
        let [desc, avail, used] = q.addresses().map(|a| a.0);
        Self {
            desc,
            avail,
            used,
            num,
            seen: 0,
            done: 0,
        }
    }

    /// Takes the next chain: returns what it reads, writes `answer`, and returns the chain.
    pub fn serve(&mut self, b: &mut Bench, answer: &[u8]) -> Result<Vec<u8>, Fault> {
        let idx = u16::from_le_bytes(read(b, self.avail + 2)?);
        if idx == self.seen {
            return Err("nothing available");
        }
        let slot = self.avail + 4 + u64::from(self.seen % self.num) * 2;
        let head = u16::from_le_bytes(read(b, slot)?);
        self.seen = self.seen.wrapping_add(1);
        let (mut request, mut left) = (Vec::new(), answer);
        let (mut table, mut next) = (self.desc, Some(head));
        while let Some(index) = next {
            let d: [u8; 16] = read(b, table + u64::from(index) * 16)?;
            let addr = u64::from_le_bytes(d[..8].try_into().unwrap());
            let len = u32::from_le_bytes(d[8..12].try_into().unwrap());
            let flags = u16::from_le_bytes(d[12..14].try_into().unwrap());
            let follow = u16::from_le_bytes(d[14..].try_into().unwrap());
            if flags & 4 != 0 {
                if table != self.desc || flags & 1 != 0 {
                    return Err("a table in a table or a chain");
                }
                (table, next) = (addr, Some(0));
                continue;
            }
            for a in addr..addr + u64::from(len) {
                if flags & 2 == 0 {
                    request.push(read::<1>(b, a)?[0]);
                } else if let Some((byte, rest)) = left.split_first() {
                    write(b, a, &[*byte])?;
                    left = rest;
                }
            }
            next = (flags & 1 != 0).then_some(follow);
        }
        let written = answer.len() - left.len();
        self.return_used(b, head.into(), written as u32);
        Ok(request)
    }

    pub fn return_used(&mut self, b: &mut Bench, id: u32, len: u32) {
        let slot = self.used + 4 + u64::from(self.done % self.num) * 8;
        write(b, slot, &id.to_le_bytes()).unwrap();
        write(b, slot + 4, &len.to_le_bytes()).unwrap();
        self.done = self.done.wrapping_add(1);
        write(b, self.used + 2, &self.done.to_le_bytes()).unwrap();
    }

    pub fn set_no_notify(&self, b: &mut Bench) {
        write(b, self.used, &1_u16.to_le_bytes()).unwrap();
    }
}

fn translate(b: &mut Bench, addr: u64) -> Result<u64, Fault> {
    let Some(domain) = b.dma.domain_of(b.dev) else {
        return Ok(addr);
    };
    let iommu = b.dma.iommu().unwrap();
    let phys = iommu.iova_to_phys(&mut b.m, domain, addr);
    phys.map(|p| p.0).ok_or("IOMMU fault")
}

fn read<const N: usize>(b: &mut Bench, addr: u64) -> Result<[u8; N], Fault> {
    let phys = translate(b, addr)?;
    let coherent = b.dma.device(b.dev).unwrap().coherent;
    let data = if coherent {
        b.m.cpu_read(phys, N)
    } else {
        b.m.device_read(phys, N as u64)
    };
    Ok(data.try_into().unwrap())
}

fn write(b: &mut Bench, addr: u64, data: &[u8]) -> Result<(), Fault> {
    let phys = translate(b, addr)?;
    let writable = b
        .dma
        .describe(b.dev, DmaAddr(addr))
        .is_none_or(|p| p.dir.device_writes());
    if !writable {
        return Err("not writable");
    }
    if b.dma.device(b.dev).unwrap().coherent {
        b.m.mem_write(PhysAddr(phys), data);
    } else {
        b.m.device_write(phys, data);
    }
    Ok(())
}
