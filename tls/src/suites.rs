//! Versions of TLS and ciphers, by the words of Redis' configuration.
//!
//! Those words are OpenSSL's. What there is here is small and all of it strong: TLS 1.2 and 1.3 with ephemeral keys and
//! authenticated ciphers. Words that only select among weaker ciphers (`!MEDIUM`, `!aNULL`) are understood and change nothing.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::error::TlsError;

/// Which versions and ciphers may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suites {
    /// `tls-protocols`: `TLSv1.2`, `TLSv1.3` or both; empty for both.
    pub protocols: String,
    /// `tls-ciphers`: those of TLS 1.2, in OpenSSL's words; empty for all.
    pub ciphers: String,
    /// `tls-ciphersuites`: those of TLS 1.3; empty for all.
    pub ciphersuites: String,
}

/// A cipher's name in OpenSSL, what it is here, and the groups that contain it besides all of them.
type Row = (&'static str, CipherSuite, &'static [&'static str]);

/// Of TLS 1.2, the preferred first.
const CIPHERS: &[Row] = &[
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        &["ECDSA", "aECDSA", "AES", "AES256", "AESGCM", "SHA384"],
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        &["ECDSA", "aECDSA", "AES", "AES128", "AESGCM", "SHA256"],
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        &["ECDSA", "aECDSA", "CHACHA20"],
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        &["aRSA", "AES", "AES256", "AESGCM", "SHA384"],
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        &["aRSA", "AES", "AES128", "AESGCM", "SHA256"],
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        &["aRSA", "CHACHA20"],
    ),
];

/// Groups of OpenSSL that hold every cipher that there is here.
const ALL: &[&str] = &[
    "DEFAULT", "ALL", "HIGH", "FIPS", "TLSv1.2", "ECDHE", "EECDH", "kECDHE", "kEECDH",
];

/// Groups of OpenSSL none of whose ciphers is offered here.
const NONE: &[&str] = &[
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "MEDIUM",
    "LOW",
    "EXP",
    "EXPORT",
    "aNULL",
    "eNULL",
    "NULL",
    "ADH",
    "AECDH",
    "DH",
    "DHE",
    "EDH",
    "kDHE",
    "kEDH",
    "aDH",
    "kRSA",
    "RSA",
    "DSS",
    "aDSS",
    "PSK",
    "kPSK",
    "aPSK",
    "SRP",
    "MD5",
    "SHA1",
    "SHA",
    "RC4",
    "RC2",
    "DES",
    "3DES",
    "IDEA",
    "SEED",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "AESCCM",
    "AESCCM8",
    "GOST",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
];

/// Of TLS 1.3, the preferred first.
const CIPHERSUITES: &[(&str, CipherSuite)] = &[
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

impl Suites {
    /// What the library is told: its ciphers and its versions.
    pub(crate) fn resolve(
        &self,
    ) -> Result<(Arc<CryptoProvider>, Vec<&'static SupportedProtocolVersion>), TlsError> {
        let mut provider = aws_lc_rs::default_provider();
        let wanted = [ciphersuites(&self.ciphersuites)?, ciphers(&self.ciphers)?].concat();
        let find = |suite: &CipherSuite| -> Option<SupportedCipherSuite> {
            let known = &provider.cipher_suites;
            known.iter().find(|known| known.suite() == *suite).copied()
        };
        provider.cipher_suites = wanted.iter().filter_map(find).collect();
        Ok((Arc::new(provider), versions(&self.protocols)?))
    }
}

fn setting(name: &'static str, reason: String) -> TlsError {
    TlsError::Setting {
        setting: name,
        reason,
    }
}

fn versions(words: &str) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    const NAME: &str = "tls-protocols";
    let mut versions = Vec::new();
    for word in words.split_whitespace() {
        let version = match word.to_ascii_lowercase().as_str() {
            "tlsv1.2" => &version::TLS12,
            "tlsv1.3" => &version::TLS13,
            "tlsv1" | "tlsv1.1" => {
                let reason =
                    format!("{word} is too weak to be offered; there are TLSv1.2 and TLSv1.3");
                return Err(setting(NAME, reason));
            }
            _ => {
                let reason = format!("unknown version {word:?}; there are TLSv1.2 and TLSv1.3");
                return Err(setting(NAME, reason));
            }
        };
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    match versions.is_empty() {
        true => Ok(vec![&version::TLS13, &version::TLS12]),
        false => Ok(versions),
    }
}

/// A list as `openssl ciphers` takes it: names and groups add in order, `!` and `-` in front take away, `+` puts last.
fn ciphers(words: &str) -> Result<Vec<CipherSuite>, TlsError> {
    const NAME: &str = "tls-ciphers";
    let mut chosen: Vec<CipherSuite> = Vec::new();
    let mut banned: Vec<CipherSuite> = Vec::new();
    let words = if words.is_empty() { "DEFAULT" } else { words };
    for word in words
        .split([':', ',', ' ', ';'])
        .filter(|word| !word.is_empty())
    {
        // Says how strongly a signature must be; all that is here is enough for the default levels.
        if word.starts_with("@STRENGTH") || word.starts_with("@SECLEVEL=") {
            continue;
        }
        let (sign, name) = match word.as_bytes() {
            [sign @ (b'!' | b'-' | b'+'), ..] => (*sign, &word[1..]),
            _ => (b' ', word),
        };
        let group = group(name).ok_or_else(|| {
            setting(
                NAME,
                format!("unknown cipher {name:?}; there are {}", names()),
            )
        })?;
        match sign {
            b'!' => {
                chosen.retain(|suite| !group.contains(suite));
                banned.extend(group);
            }
            b'-' => chosen.retain(|suite| !group.contains(suite)),
            b'+' => chosen.sort_by_key(|suite| group.contains(suite)),
            _ => {
                let is_new =
                    |suite: &CipherSuite| !chosen.contains(suite) && !banned.contains(suite);
                let new: Vec<CipherSuite> = group.into_iter().filter(is_new).collect();
                chosen.extend(new);
            }
        }
    }
    match chosen.is_empty() {
        true => Err(setting(
            NAME,
            format!("{words:?} leaves no cipher; there are {}", names()),
        )),
        false => Ok(chosen),
    }
}

/// The ciphers of a name: itself, a group, or groups joined by `+`, which all must hold it.
fn group(name: &str) -> Option<Vec<CipherSuite>> {
    let mut found: Vec<&Row> = CIPHERS.iter().collect();
    for part in name.split('+') {
        if ALL.contains(&part) {
            continue;
        }
        let is_known = NONE.contains(&part)
            || CIPHERS
                .iter()
                .any(|(known, _, groups)| *known == part || groups.contains(&part));
        if !is_known {
            return None;
        }
        found.retain(|(known, _, groups)| *known == part || groups.contains(&part));
    }
    Some(found.into_iter().map(|(_, suite, _)| *suite).collect())
}

fn names() -> String {
    let names: Vec<&str> = CIPHERS.iter().map(|(name, ..)| *name).collect();
    names.join(", ")
}

fn ciphersuites(words: &str) -> Result<Vec<CipherSuite>, TlsError> {
    const NAME: &str = "tls-ciphersuites";
    let words = words.split([':', ',', ' ']).filter(|word| !word.is_empty());
    let mut chosen = Vec::new();
    for word in words {
        let Some((_, suite)) = CIPHERSUITES.iter().find(|(name, _)| *name == word) else {
            let names: Vec<&str> = CIPHERSUITES.iter().map(|(name, _)| *name).collect();
            let reason = format!("unknown cipher {word:?}; there are {}", names.join(", "));
            return Err(setting(NAME, reason));
        };
        if !chosen.contains(suite) {
            chosen.push(*suite);
        }
    }
    if chosen.is_empty() {
        chosen.extend(CIPHERSUITES.iter().map(|(_, suite)| *suite));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(words: &str) -> Result<Vec<&'static str>, String> {
        let chosen = ciphers(words).map_err(|error| error.to_string())?;
        let name =
            |suite: &CipherSuite| CIPHERS.iter().find(|row| row.1 == *suite).map(|row| row.0);
        Ok(chosen.iter().filter_map(name).collect())
    }

    #[test]
    fn lists_of_ciphers_are_read_as_openssl_reads_them() {
        let all: Vec<&str> = CIPHERS.iter().map(|row| row.0).collect();
        let rows: [(&str, Vec<&str>); 6] = [
            ("", all.clone()),
            ("DEFAULT:!MEDIUM", all.clone()),
            (
                "ECDHE-RSA-AES128-GCM-SHA256",
                vec!["ECDHE-RSA-AES128-GCM-SHA256"],
            ),
            (
                "HIGH:!ECDSA:!CHACHA20:!aNULL",
                vec!["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"],
            ),
            (
                "aRSA+AESGCM:+AES256",
                vec!["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"],
            ),
            (
                "!AES:ALL:@STRENGTH",
                vec![
                    "ECDHE-ECDSA-CHACHA20-POLY1305",
                    "ECDHE-RSA-CHACHA20-POLY1305",
                ],
            ),
        ];
        for (words, want) in rows {
            assert_eq!(names_of(words), Ok(want), "{words:?}");
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let rows = [
            (
                Suites {
                    protocols: "TLSv1.1 TLSv1.2".into(),
                    ..Suites::default()
                },
                "tls-protocols: TLSv1.1 is too weak",
            ),
            (
                Suites {
                    protocols: "SSLv9".into(),
                    ..Suites::default()
                },
                "tls-protocols: unknown version \"SSLv9\"",
            ),
            (
                Suites {
                    ciphers: "AES128-SHA".into(),
                    ..Suites::default()
                },
                "tls-ciphers: unknown cipher \"AES128-SHA\"",
            ),
            (
                Suites {
                    ciphers: "kRSA".into(),
                    ..Suites::default()
                },
                "tls-ciphers: \"kRSA\" leaves no cipher",
            ),
            (
                Suites {
                    ciphersuites: "TLS_AES_128_CCM_SHA256".into(),
                    ..Suites::default()
                },
                "tls-ciphersuites: unknown cipher",
            ),
        ];
        for (suites, want) in rows {
            let error = suites.resolve().expect_err("an error").to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }

    #[test]
    fn every_cipher_of_the_tables_is_there() {
        let (provider, versions) = Suites::default().resolve().expect("the defaults");
        assert_eq!(
            provider.cipher_suites.len(),
            CIPHERS.len() + CIPHERSUITES.len()
        );
        assert_eq!(versions.len(), 2);
    }
}
