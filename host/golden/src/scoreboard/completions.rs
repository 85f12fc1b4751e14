//! Completions, and the data that TLPs carry.

use tlproof_pcie::{Bdf, CplStatus, Head};

use super::Scoreboard;
use crate::flight::{CPU, FABRIC, Responder, Source};
use crate::header::{self, Error};
use crate::violation::{Rule, Tap, TlpId};

impl Scoreboard {
    /// A completion is seen for the first time, at its completer.
    pub(super) fn completion(&mut self, by: Responder, id: TlpId, head: &Head) -> Option<u32> {
        self.stats.check(Rule::Completion);
        let source: Source = FABRIC;
        let Some(slot) = self.flights.answered(head) else {
            self.violate(
                Rule::Completion,
                "arrival",
                "no completion: no request is outstanding",
                header::describe(head),
                "PCIe 6.0 §2.3.2",
            );
            return None;
        };
        let limit = match by {
            Responder::Endpoint(n) => self.fabric.max_payload(n),
            _ => match self.now.tap {
                Tap::RpTx(p) => self.fabric.root_max_payload(p),
                _ => 4096,
            },
        };
        let completer_ok = match by {
            // Bus and Device Number are 0 until the first configuration write gives them.
            Responder::Endpoint(n) => {
                let own = self.fabric.requester(n);
                own == Some(head.completer())
                    || !self.captured[usize::from(n & 7)] && head.completer() == Bdf(0)
            }
            Responder::Bridge => head.completer().bus() == 0,
            _ => self.fabric.is_port(head.completer()),
        };
        let t = self.flights.transaction(slot);
        let error = if t.responder != by {
            Some(Error::new(
                "completer",
                format!("{:?}", t.responder),
                format!("{by:?}"),
                "PCIe 6.0 §2.2.9, §2.3.1",
            ))
        } else if !completer_ok {
            Some(Error::new(
                "completer",
                "the completer's own ID",
                head.completer().to_string(),
                "PCIe 6.0 §2.2.9",
            ))
        } else {
            header::check_completion(t, head, limit)
        };
        // The completion is followed as it is, so that one wrong field is one violation.
        let bytes = header::completion_bytes(&t.head, head);
        let before = t.sent;
        t.sent += bytes;
        let last = head.status() != CplStatus::Success || t.sent >= t.total;
        t.flying += 1;
        if last {
            self.flights.close(slot);
        }
        if let Some(e) = error {
            self.report(Rule::Completion, e, None);
        }
        let f = self.flights.add(id, head, source, &[]);
        let flight = self.flights.get_mut(f);
        flight.transaction = slot;
        flight.before = before;
        flight.last = last;
        Some(f)
    }

    /// A completion has come back to its requester.
    pub(super) fn deliver(&mut self, slot: u32, payload: Option<&[u8]>) {
        let f = self.flights.get(slot);
        let (transaction, before, head) = (f.transaction, f.before, f.head);
        let from_endpoint = f.source < CPU;
        if let Some(payload) = payload.filter(|_| head.has_data()) {
            if from_endpoint {
                self.check_payload(slot, &head, payload);
            } else {
                self.check_read_data(transaction, before, &head, payload);
            }
        }
        let t = self.flights.transaction(transaction);
        let arrived = t.arrived;
        t.arrived += header::completion_bytes(&t.head, &head);
        t.flying -= 1;
        self.flights.retire(transaction);
        if arrived != before {
            self.violate(
                Rule::Completion,
                "order",
                format!("{before} bytes before it"),
                format!("{arrived} bytes"),
                "PCIe 6.0 §2.3.1.1",
            );
        }
        self.finish(slot);
    }

    /// What a device reads is what the memory answered.
    pub(super) fn check_read_data(
        &mut self,
        transaction: u32,
        before: u32,
        head: &Head,
        payload: &[u8],
    ) {
        let t = self.flights.transaction(transaction);
        if !t.memory {
            return;
        }
        let skip = t.head.byte_span().0 as usize;
        let from = skip + before as usize;
        let len = header::completion_bytes(&t.head, head) as usize;
        // The payload begins with the DW that holds the first byte.
        let lead = from & 3;
        let zero_length = t.head.byte_span().1 == 0;
        let answered = t.data.get(from..from + len);
        let got = payload.get(lead..lead + len);
        let wrong = if zero_length || (answered.is_some() && answered == got) {
            None
        } else {
            let at = (0..len)
                .find(|i| t.data.get(from + i) != payload.get(lead + i))
                .unwrap_or(0);
            Some((at, byte(&t.data, from + at), byte(payload, lead + at)))
        };
        self.stats.check(Rule::Payload);
        if let Some((at, expected, got)) = wrong {
            self.violate_promise(
                Rule::Payload,
                "payload",
                format!("byte {at}: {expected}"),
                got,
                "PCIe 6.0 §2.2.9: the completion carries what the memory answered",
                None,
            );
        }
    }

    /// Data at the end of the way is the data of its beginning.
    pub(super) fn check_payload(&mut self, slot: u32, head: &Head, data: &[u8]) {
        self.stats.check(Rule::Payload);
        let sent = &self.flights.get(slot).payload;
        if sent == data {
            return;
        }
        let enabled = header::enabled_bytes(head);
        let wrong =
            (0..sent.len().max(data.len())).find(|i| enabled(*i) && sent.get(*i) != data.get(*i));
        let Some(at) = wrong else { return };
        let (expected, got) = (byte(sent, at), byte(data, at));
        let call = self.call_of(self.flights.get(slot).grant);
        self.violate_promise(
            Rule::Payload,
            "payload",
            format!("byte {at}: {expected}"),
            got,
            "PCIe 6.0 §2.2.2: data is carried unchanged",
            call,
        );
    }
}

fn byte(data: &[u8], at: usize) -> String {
    data.get(at)
        .map_or_else(|| "no byte".to_owned(), |b| format!("{b:#04x}"))
}
