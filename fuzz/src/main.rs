//! The fuzzer: one binary, the target chosen by `DFSNAP_FUZZ_TARGET`. `scripts/fuzz` builds and runs it.
#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("DFSNAP_FUZZ_TARGET").unwrap_or_default();
        let known = targets::TARGETS.iter().find(|(known, _)| *known == name);
        known
            .unwrap_or_else(|| panic!("DFSNAP_FUZZ_TARGET={name}: no such target"))
            .1
    });
    target(data);
});
