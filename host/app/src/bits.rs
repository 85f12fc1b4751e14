//! Bit fields of packed structs as they stand in port words, least significant word first.

/// `width` (up to 64) bits from bit `lsb`.
#[inline]
pub fn get(words: &[u32], lsb: usize, width: usize) -> u64 {
    let (at, shift) = (lsb / 32, lsb % 32);
    let mut v = u64::from(words[at]) >> shift;
    let mut have = 32 - shift;
    let mut next = at + 1;
    while have < width {
        v |= u64::from(words[next]).wrapping_shl(have as u32);
        have += 32;
        next += 1;
    }
    if width == 64 {
        v
    } else {
        v & ((1 << width) - 1)
    }
}

/// Sets `width` (up to 64) bits from bit `lsb`.
pub fn set(words: &mut [u32], lsb: usize, width: usize, value: u64) {
    for i in 0..width {
        let bit = lsb + i;
        let mask = 1 << (bit % 32);
        if value >> i & 1 != 0 {
            words[bit / 32] |= mask;
        } else {
            words[bit / 32] &= !mask;
        }
    }
}

/// Copies 32-bit words from bit `lsb` on into `out`.
#[inline]
pub fn copy(words: &[u32], lsb: usize, out: &mut [u32]) {
    let (at, shift) = (lsb / 32, lsb % 32);
    if shift == 0 {
        out.copy_from_slice(&words[at..at + out.len()]);
    } else {
        for (i, o) in out.iter_mut().enumerate() {
            let high = words.get(at + i + 1).copied().unwrap_or(0);
            *o = words[at + i] >> shift | high << (32 - shift);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cross_words() {
        let mut w = [0; 4];
        set(&mut w, 25, 56, 0x00ab_cdef_1234_5678);
        assert_eq!(get(&w, 25, 56), 0x00ab_cdef_1234_5678);
        assert_eq!(get(&w, 0, 25), 0);
        assert_eq!(get(&w, 81, 32), 0);
        set(&mut w, 31, 64, u64::MAX);
        assert_eq!(get(&w, 31, 64), u64::MAX);
        let mut out = [0; 2];
        copy(&w, 31, &mut out);
        assert_eq!(out, [u32::MAX; 2]);
    }
}
