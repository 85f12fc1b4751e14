//! What is reported of a sync: D16 to D21.

use super::*;

#[test]
fn d8_and_d21_entry_count() {
    // Apart, so that nothing merges.
    let buffers = [(RAM, 4096), (RAM + 0x4000, 4096), (RAM + 0x8000, 4096)];
    let mut b = direct();
    let mut sg = b.map_sg(FromDevice, &buffers);
    b.dma
        .dma_sync_sg_for_cpu(&mut b.m, b.dev, &sg[..2], FromDevice);
    b.expect(&[21, 21]);
    b.unmap_sg(&mut sg[..2], FromDevice);
    b.expect(&[21, 21, 8, 8]);

    let mut b = direct();
    let mut sg = b.map_sg(FromDevice, &buffers);
    b.dma.dma_sync_sg_for_cpu(&mut b.m, b.dev, &sg, FromDevice);
    b.dma
        .dma_sync_sg_for_device(&mut b.m, b.dev, &sg, FromDevice);
    b.unmap_sg(&mut sg, FromDevice);
    b.expect(&[]);
    assert!(b.debug().is_empty());

    // A list that nobody knows: no report of a sync, one an entry of an unmap.
    let mut b = direct();
    let mut sg = b.map_sg(FromDevice, &buffers);
    let mut again = sg.clone();
    b.unmap_sg(&mut sg, FromDevice);
    b.dma
        .dma_sync_sg_for_cpu(&mut b.m, b.dev, &again, FromDevice);
    b.expect(&[]);
    b.unmap_sg(&mut again, FromDevice);
    b.expect(&[4, 4, 4]);
}

#[test]
fn d16_d17_where_a_sync_lies() {
    let mut b = translated();
    let a = b.mapped(RAM + 0x100, 0x400, FromDevice, NONE);
    b.for_cpu(a, 0x400, FromDevice);
    b.for_cpu(a + 0x3ff, 1, FromDevice);
    b.expect(&[]);
    b.for_cpu(a + 0x3ff, 2, FromDevice);
    b.for_cpu(a - 1, 2, FromDevice);
    b.for_device(a + 0x400, 1, FromDevice);
    b.expect(&[16, 16, 16]);
    // Only a size that wraps around is contained and too long.
    b.for_cpu(a, u64::MAX, FromDevice);
    b.expect(&[16, 16, 16, 17]);
    // A mapping of many of the kernel's hash buckets.
    let a = b.mapped(RAM + 0x10_0000, 0x10_0000, FromDevice, NONE);
    b.for_cpu(a + 0xf_0000, 0x100, FromDevice);
    b.expect(&[16, 16, 16, 17]);
}

#[test]
fn d18_d19_d20_sync_directions() {
    for (mapped, synced, for_cpu, for_device) in [
        (ToDevice, ToDevice, &[][..], &[][..]),
        (FromDevice, FromDevice, &[], &[]),
        (ToDevice, FromDevice, &[18, 19], &[18]),
        (ToDevice, Bidirectional, &[18, 19], &[18]),
        (FromDevice, ToDevice, &[18], &[18, 20]),
        (FromDevice, Bidirectional, &[18], &[18, 20]),
        (Bidirectional, ToDevice, &[], &[]),
        (Bidirectional, FromDevice, &[], &[]),
    ] {
        let mut b = translated();
        let a = b.mapped(RAM, 64, mapped, NONE);
        b.for_cpu(a, 64, synced);
        b.expect(for_cpu);
        let mut b = translated();
        let a = b.mapped(RAM, 64, mapped, NONE);
        b.for_device(a, 64, synced);
        b.expect(for_device);
    }
}

/// Two mappings at one address: neither is of the type that a sync asks for, so none is found.
#[test]
fn a_sync_of_a_buffer_mapped_twice_finds_neither() {
    let mut b = direct();
    b.mapped(RAM, 64, ToDevice, NONE);
    b.mapped(RAM, 64, ToDevice, NONE);
    b.for_device(RAM, 64, ToDevice);
    b.expect(&[16]);
    // In another bucket of 8 KiB each is judged on its own.
    let mut b = direct();
    b.mapped(RAM, 0x4000, ToDevice, NONE);
    b.mapped(RAM + 0x2000, 0x1000, ToDevice, NONE);
    b.for_device(RAM + 0x2000, 64, ToDevice);
    b.expect(&[]);
}
