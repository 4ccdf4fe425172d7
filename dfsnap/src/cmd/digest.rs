//! `dfsnap digest`: the DEBUG DIGEST of the data in a dump.

use crate::cli::DigestArgs;
use crate::report::{self, Failure, Outcome};
use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::rdb::decode::DecodeLimits;
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};

pub fn run(args: &DigestArgs) -> Result<Outcome, Failure> {
    let form = match args.legacy {
        true => ScoreForm::Legacy,
        false => ScoreForm::Short,
    };
    let mut reader = RdbReader::new(report::open(&args.file)?, Options::default());
    let limits = DecodeLimits::default();
    let now_ms = report::now_ms();
    let mut dataset = DatasetDigest::default();
    let mut expired = 0;
    let failure = |error| Failure::read(&args.file, &error);
    while let Some(record) = reader.next().map_err(failure)? {
        let key = match record {
            Record::Key(key) => key,
            _ => continue,
        };
        let gone = |time| {
            key.attributes
                .expire_at_ms
                .is_some_and(|at_ms| at_ms <= time)
        };
        if args.expired_at.is_some_and(gone) {
            continue;
        }
        let value = key.decode(&limits).map_err(failure)?;
        if let Some(value) = value {
            expired += u64::from(gone(now_ms));
            let expires = key.attributes.expire_at_ms.is_some();
            dataset.add(key.db, key_digest(key.key, &value, expires, form));
        }
    }
    if expired > 0 && args.expired_at.is_none() {
        eprintln!(
            "note: {expired} keys have expired by now and are counted; a server drops them on loading"
        );
        eprintln!("try: --expired-at {now_ms} leaves them out");
    }
    Ok(Outcome {
        text: format!("{}\n", dataset.finish()),
        finding: false,
    })
}
