//! What a wrong answer may come of: capabilities and choices with which it would be right.

use tlproof_golden::iommu::{
    Capabilities, Choices, CleanPage, Request, Translator, WideAddress, WideMsiMask,
};

use crate::compare::compare;
use crate::layout::Answer;
use crate::memory::SystemRam;

type Change = fn(&mut Choices);

/// Each choice that an answer can show, made otherwise.
const OTHERWISE: [(&str, Change); 16] = [
    ("wide_address", |c| {
        c.wide_address = match c.wide_address {
            WideAddress::AccessFault => WideAddress::Misconfigured,
            WideAddress::Misconfigured => WideAddress::AccessFault,
        }
    }),
    ("gxl_writable", |c| c.gxl_writable ^= true),
    ("msi_needs_second_stage", |c| {
        c.msi_needs_second_stage ^= true
    }),
    ("wide_msi_mask", |c| c.wide_msi_mask = WideMsiMask::Masked),
    ("wide_msi_mask", |c| {
        c.wide_msi_mask = WideMsiMask::Misconfigured
    }),
    ("wide_msi_mask", |c| c.wide_msi_mask = WideMsiMask::Used),
    ("msi_address_clipped", |c| c.msi_address_clipped ^= true),
    ("wide_pass_through_faults", |c| {
        c.wide_pass_through_faults ^= true
    }),
    ("execute_needs_read", |c| c.execute_needs_read ^= true),
    ("ats_corruption_aborts", |c| c.ats_corruption_aborts ^= true),
    ("ats_clean_page", |c| c.ats_clean_page = CleanPage::NoAccess),
    ("ats_clean_page", |c| {
        c.ats_clean_page = CleanPage::NoAccessIfWritable
    }),
    ("ats_clean_page", |c| c.ats_clean_page = CleanPage::ReadOnly),
    ("ats_access_by_request", |c| c.ats_access_by_request ^= true),
    ("cxl_io_for_pma", |c| c.cxl_io_for_pma ^= true),
    ("fixed_big_endian", |c| c.fixed_big_endian ^= true),
];

/// Names of capabilities and choices, each of which would make `answer` right if it were otherwise.
#[must_use]
pub fn suspects(
    translator: &Translator,
    memory: &SystemRam,
    request: &Request,
    answer: &Answer,
) -> Vec<String> {
    let fits = |other: &Translator| {
        let response = other.lookup(memory, request);
        compare(
            request,
            &response,
            answer,
            other.choices.bare_size_log2,
            false,
        )
        .is_empty()
    };
    let bits = translator.capabilities.bits;
    let capabilities = Capabilities::FIELDS
        .into_iter()
        .filter(|field| field.2 == 1);
    let capabilities = capabilities.filter_map(|(name, low, _)| {
        let mut other = translator.clone();
        other.capabilities = Capabilities::decode(bits ^ 1 << low);
        let word = if bits >> low & 1 == 1 {
            "without"
        } else {
            "with"
        };
        fits(&other).then(|| format!("{word} {name}"))
    });
    let choices = OTHERWISE.into_iter().filter_map(|(name, change)| {
        let mut other = translator.clone();
        change(&mut other.choices);
        (other.choices != translator.choices && fits(&other))
            .then(|| format!("with another {name}"))
    });
    let mut names: Vec<String> = capabilities.chain(choices).collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::BASE;

    #[test]
    fn a_capability_and_a_choice() {
        let mut memory = SystemRam::default();
        let (directory, table) = (BASE + 0x1000, BASE + 0x2000);
        memory.ram.set(directory + 5 * 32, 1);
        memory
            .ram
            .set(directory + 5 * 32 + 24, 9 << 60 | table >> 12);
        memory.ram.set(table, 0x99); // V X U: executable, not readable; no A
        let capabilities = 56 << 32 | 3 << 9 | 0x10;
        let mut iommu = Translator::new(Capabilities::decode(capabilities), Choices::default());
        iommu.ddtp = directory >> 12 << 10 | 2;
        let request = Request::untranslated(5, 0x1000, false);
        let fault = |cause| Answer {
            status: 1,
            cause,
            ..Answer::decode(&[0; 8])
        };
        // An RTL that takes the mode for one that it does not know.
        let said = suspects(&iommu, &memory, &request, &fault(259));
        assert_eq!(said, ["without sv48"]);
        // Beyond PAS, without a page table.
        memory.ram.set(directory + 5 * 32 + 24, 0);
        let request = Request::untranslated(5, 1 << 60, false);
        let said = suspects(&iommu, &memory, &request, &fault(5));
        assert_eq!(said, ["with another wide_pass_through_faults"]);
        assert!(suspects(&iommu, &memory, &request, &fault(13)).is_empty());
    }
}
