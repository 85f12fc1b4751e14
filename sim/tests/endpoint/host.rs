//! What the host knows of its own requests: what they ask for, and what a completion must look like.

use tlproof_pcie::{Bdf, CplStatus, Head};

use crate::common::{Checked, Tlp};

/// Read Completion Boundary.
pub const RCB: u64 = 64;

/// A non-posted request of the host.
pub struct Request {
    pub head: Head,
    /// Bytes of the DWs asked for, `None` where a later write may have been seen or not.
    pub expected: Vec<Option<u8>>,
    pub data: Vec<u8>,
    pub status: Option<CplStatus>,
    bytes: u64,
}

impl Request {
    pub fn new(head: Head, expected: Vec<Option<u8>>) -> Self {
        Self {
            head,
            expected,
            data: Vec::new(),
            status: None,
            bytes: 0,
        }
    }

    /// A completion of this request; sets `status` with the last.
    pub fn accept(&mut self, cpl: &Tlp, completer: Bdf, mps: usize) -> Checked {
        let (h, r) = (&cpl.head, &self.head);
        ensure!(
            h.requester() == r.requester(),
            "requester {}",
            h.requester()
        );
        ensure!(
            h.completer() == completer,
            "completer {}, not {completer}",
            h.completer()
        );
        let copied = |h: &Head| h.hdr[0] & 0x0074_3000;
        ensure!(copied(h) == copied(r), "TC or Attr of {h:x?} for {r:x?}");
        ensure!(
            h.hdr[0] & 0xcc00 == 0 && h.pfx.is_none(),
            "TD, EP, AT or prefix: {h:x?}"
        );
        let (first, span) = r.byte_span();
        let read = r.is_mem_read();
        let total = if read { span.max(1) } else { 4 };
        let left = total - self.bytes;
        let addr = if read {
            r.addr().0 + first + self.bytes
        } else {
            0
        };
        ensure!(
            u64::from(h.byte_count()) == left,
            "byte count {}, not {left}",
            h.byte_count()
        );
        ensure!(
            u64::from(h.lower_addr()) == addr % 128,
            "lower address of {h:x?}, not {addr:#x}"
        );
        if h.status() != CplStatus::Success || !h.has_data() {
            let reads = !r.has_data();
            ensure!(
                !h.has_data() && h.hdr[0] & 0x3ff == 0,
                "data with a status: {h:x?}"
            );
            ensure!(
                h.status() != CplStatus::Success || !reads,
                "read without data: {h:x?}"
            );
            self.status = Some(h.status());
            return Ok(());
        }
        ensure!(cpl.data.len() <= mps, "{} bytes, MPS {mps}", cpl.data.len());
        let lead = addr % 4;
        let n = left.min(cpl.data.len() as u64 - lead);
        if n == left {
            let dws = (lead + n).div_ceil(4);
            ensure!(
                u64::from(h.len_dw()) == dws,
                "length {}, not {dws}",
                h.len_dw()
            );
            self.status = Some(CplStatus::Success);
        } else {
            ensure!(
                (addr + n).is_multiple_of(RCB),
                "ends at {:#x}, off the RCB",
                addr + n
            );
        }
        self.bytes += n;
        self.data.extend_from_slice(&cpl.data);
        Ok(())
    }

    /// The data are those expected.
    pub fn verify(&self) -> Checked {
        ensure!(
            self.status == Some(CplStatus::Success),
            "{:x?}: {:?}",
            self.head,
            self.status
        );
        let (first, span) = self.head.byte_span();
        for i in first as usize..(first + span) as usize {
            let (seen, due) = (self.data.get(i).copied(), self.expected[i]);
            ensure!(
                due.is_none() || seen == due,
                "byte {i} at {:#x}: {seen:x?}, not {due:x?}",
                self.head.addr()
            );
        }
        Ok(())
    }
}
