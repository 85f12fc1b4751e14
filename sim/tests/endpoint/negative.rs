//! The checkers fail when there is reason to.

use rand::SeedableRng;
use tlproof_pcie::{Bdf, CplStatus};

use crate::{
    bench::Bench,
    common::{Beat, Checked, Sink, Tlp, enables, plain},
    descriptor::Descriptor,
    part,
};

pub fn complaint<T>(r: Checked<T>, about: &str) {
    let e = r.err().unwrap_or_else(|| panic!("not noticed: {about}"));
    assert!(e.contains(about), "`{e}` is not about `{about}`");
}

#[test]
fn a_wrong_byte_of_a_completion() -> Checked {
    let mut b = Bench::configured(20)?;
    let tag = b.local_read(0x40, 32, 0xf, 0xf);
    let r = b.waiting.get_mut(&tag).ok_or("no request")?;
    r.expected[77] = r.expected[77].map(|v| v ^ 1);
    complaint(b.run(200), "byte 77 at 0x7f00000040");
    Ok(())
}

#[test]
fn a_wrong_byte_of_a_write() -> Checked {
    let mut b = Bench::configured(21)?;
    b.local[part(0) as usize + 999] ^= 0x80;
    b.push(Descriptor::plain(true, 0x1000, 1000, part(0)));
    complaint(b.run(400), "byte at 0x13e7");
    Ok(())
}

#[test]
fn a_wrong_byte_of_a_dma_read() -> Checked {
    let mut b = Bench::configured(22)?;
    b.push(Descriptor::plain(false, 0x1000, 1000, part(0)));
    b.record()?;
    b.local[part(0) as usize + 5] ^= 1;
    complaint(b.check_local(part(0), 1000), "byte 5 at");
    Ok(())
}

#[test]
fn requests_beyond_the_limits() -> Checked {
    for (write, about) in [(true, "32 DW, limit 64"), (false, "128 DW, limit 256")] {
        let mut b = Bench::configured(23)?;
        b.limits.mps /= 2;
        b.limits.mrrs /= 2;
        b.dma
            .push(1, Descriptor::plain(write, 0x1000, 1000, part(0)));
        b.push(Descriptor::plain(write, 0x1000, 1000, part(0)));
        complaint(b.run(400), about);
    }
    Ok(())
}

#[test]
fn a_request_from_elsewhere() -> Checked {
    let mut b = Bench::configured(24)?;
    b.limits.bdf = Bdf(0x0508);
    b.push(Descriptor::plain(true, 0x1000, 8, part(0)));
    complaint(b.run(400), "descriptor 1 at 0x1000");
    Ok(())
}

#[test]
fn a_request_without_bus_master_enable() -> Checked {
    let mut b = Bench::configured(25)?;
    b.limits.bus_master = false;
    b.push(Descriptor::plain(true, 0x1000, 8, part(0)));
    complaint(b.run(400), "Bus Master Enable");
    Ok(())
}

#[test]
fn a_wrong_status() -> Checked {
    let mut b = Bench::configured(26)?;
    let answer = CplStatus::UnsupportedRequest;
    let d = Descriptor::plain(false, 0x1000, 8, part(0));
    let id = b.push(Descriptor { answer, ..d });
    let raw = b.raw_record()?;
    let p = b.dma.descriptors.get_mut(&id).ok_or("no descriptor")?;
    p.status = 0;
    complaint(b.dma.record(raw), "status 1, not 0");
    Ok(())
}

#[test]
fn beats_out_of_order() {
    let (len_dw, first_be, last_be) = enables(0x1000, 64);
    let tlp = Tlp::write(
        &plain(true, 0x1000, (len_dw, first_be, last_be)),
        vec![0; 64],
    );
    let beat = Beat {
        sop: true,
        eop: false,
        head: tlp.head,
        data: [0; 32],
    };
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    for (beats, about) in [
        (vec![beat, beat], "sop"),
        (vec![Beat { sop: false, ..beat }], "sop"),
        (vec![Beat { eop: true, ..beat }], "eop"),
        (vec![beat, Beat { sop: false, ..beat }], "eop"),
    ] {
        let mut sink = Sink::default();
        let r = beats.into_iter().try_for_each(|b| {
            sink.ready(&mut rng);
            sink.accept(Some(b)).map(|_| ())
        });
        complaint(r, about);
    }
}

#[test]
fn an_assertion_of_the_rtl() -> Checked {
    let mut b = Bench::reset(27)?;
    b.step()?;
    let beat = Beat {
        sop: false,
        eop: true,
        ..Beat::default()
    };
    complaint((0..2).try_for_each(|_| b.force(&beat)), "assertion failed");
    Ok(())
}
