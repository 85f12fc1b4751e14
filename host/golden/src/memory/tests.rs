use super::*;

const A: PhysAddr = PhysAddr(0x8000_1000);

fn memory(caching: bool) -> CachedMemory {
    let mut m = CachedMemory::new(&MemoryMap::default());
    m.set_caching(caching);
    m
}

fn device(m: &CachedMemory, addr: PhysAddr, snoop: bool) -> u8 {
    let mut b = [0];
    m.device_read(addr, &mut b, snoop).unwrap();
    b[0]
}

fn cpu(m: &mut CachedMemory, addr: PhysAddr) -> u8 {
    let mut b = [0];
    m.cpu_read(addr, &mut b).unwrap();
    b[0]
}

#[test]
fn dirty_line_is_seen_by_snooping_reads_only() {
    let mut m = memory(true);
    m.cpu_write(A, &[7]).unwrap();
    assert_eq!(device(&m, A, true), 7);
    assert_eq!(device(&m, A, false), 0);
    m.clean(A, 1);
    assert_eq!(device(&m, A, false), 7);
}

#[test]
fn cpu_reads_stale_data_until_it_invalidates() {
    let mut m = memory(true);
    assert_eq!(cpu(&mut m, A), 0);
    m.device_write(A, &[9], None, false).unwrap();
    assert_eq!(cpu(&mut m, A), 0);
    m.invalidate(A, 1);
    assert_eq!(cpu(&mut m, A), 9);
    m.device_write(A, &[10], None, true).unwrap();
    assert_eq!(cpu(&mut m, A), 10);
}

#[test]
fn invalidate_loses_dirty_bytes_and_eviction_does_not() {
    let mut m = memory(true);
    m.cpu_write(A, &[1]).unwrap();
    m.invalidate(A, 1);
    assert_eq!(device(&m, A, true), 0);

    let mut m = CachedMemory::with_capacity(&MemoryMap::default(), 2);
    m.set_caching(true);
    for i in 0..3 {
        m.cpu_write(A.offset(i * LINE), &[1]).unwrap();
    }
    assert_eq!(m.cached_lines(), 2);
    assert_eq!(device(&m, A, false), 1, "evicted first in, first out");
    assert_eq!(device(&m, A.offset(LINE), false), 0);
}

#[test]
fn a_dirty_line_written_back_buries_a_device_write() {
    let mut m = memory(true);
    m.cpu_write(A, &[1]).unwrap();
    m.device_write(A.offset(1), &[2], None, false).unwrap();
    m.clean(A, LINE);
    assert_eq!(device(&m, A.offset(1), false), 0);
}

#[test]
fn strobes_select_bytes() {
    let mut m = memory(false);
    let data: Vec<u8> = (1..=12).collect();
    m.device_write(A, &data, Some(&[0b1010_0110, 0b1000]), true)
        .unwrap();
    let mut seen = [0; 12];
    m.device_read(A, &mut seen, true).unwrap();
    assert_eq!(seen, [0, 2, 3, 0, 0, 6, 0, 8, 0, 0, 0, 12]);
}

#[test]
fn accesses_across_pages_and_outside_dram() {
    let mut m = memory(false);
    let data: Vec<u8> = (0..=255).collect();
    let at = PhysAddr(A.0 + 4096 - 100);
    m.cpu_write(at, &data).unwrap();
    let mut back = vec![0; 256];
    m.read(at, &mut back).unwrap();
    assert_eq!(back, data);
    assert_eq!(m.read_u64(at).unwrap(), 0x0706_0504_0302_0100);
    let end = PhysAddr(0xffff_fffc);
    assert!(m.read_u64(end).is_err());
    assert!(m.cpu_write(end, &data).is_err());
    assert!(m.device_write(PhysAddr(0), &data, None, true).is_err());
}

#[test]
fn uncached_stores_keep_held_lines_up_to_date() {
    let mut m = memory(true);
    m.cpu_write(A, &[1]).unwrap();
    m.set_caching(false);
    m.cpu_write(A, &[2]).unwrap();
    assert_eq!(device(&m, A, true), 2);
    assert_eq!(device(&m, A, false), 2);
}
