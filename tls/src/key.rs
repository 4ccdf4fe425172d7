//! Private keys under a password: PKCS#8 with PBES2, as `openssl genpkey` and `openssl pkcs8 -topk8` write them.
//!
//! ```text
//! EncryptedPrivateKeyInfo  SEQUENCE
//!   algorithm              SEQUENCE { OID PBES2,
//!                            SEQUENCE { SEQUENCE { OID PBKDF2, SEQUENCE { OCTETS salt, INTEGER rounds, [INTEGER length],
//!                                                                         [SEQUENCE { OID HMAC-SHAx, NULL }] } },
//!                                       SEQUENCE { OID AES-x-CBC, OCTETS iv } } }
//!   encryptedData          OCTETS: a PrivateKeyInfo
//! ```

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{PemObject, SectionKind};

/// More rounds than this are no key but an attempt to keep us busy.
const ROUNDS_MAX: u32 = 50_000_000;

const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
/// 1.2.840.113549.2, then one byte: which hash.
const HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];
/// 2.16.840.1.101.3.4.1, then one byte: which cipher.
const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const INTEGER: u8 = 0x02;

/// Whether a PEM file holds a key that needs a password.
pub(crate) fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// The key of a PEM file, or what is wrong with it.
pub(crate) fn decrypt(pem: &[u8], password: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let text = String::from_utf8_lossy(pem);
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err("an encrypted key in its traditional form is not read; try: openssl pkcs8 -topk8 -in FILE -out FILE.p8".into());
    }
    // The reader of sections knows no encrypted keys; with another label it hands out the bytes.
    let renamed = text.replace("ENCRYPTED PRIVATE KEY", "PRIVATE KEY");
    let (_, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(renamed.as_bytes())
        .map_err(|error| format!("no private key: {error}"))?;
    let parameters =
        Parameters::parse(&der).ok_or("an encrypted key that cannot be understood")??;
    let key = parameters.decrypt(password)?;
    Ok(PrivateKeyDer::Pkcs8(key.into()))
}

struct Parameters<'d> {
    salt: &'d [u8],
    rounds: NonZeroU32,
    hash: pbkdf2::Algorithm,
    cipher: &'static Algorithm,
    key_len: usize,
    iv: [u8; 16],
    data: &'d [u8],
}

impl<'d> Parameters<'d> {
    /// `None`: not what it should be. An error: a scheme that is not supported.
    fn parse(der: &'d [u8]) -> Option<Result<Parameters<'d>, String>> {
        let mut whole = Der(Der(der).take(SEQUENCE)?);
        let mut scheme = Der(whole.take(SEQUENCE)?);
        let data = whole.take(OCTETS)?;
        if scheme.take(OID)? != PBES2 {
            return Some(Err("encrypted by another scheme than PBES2; try: openssl pkcs8 -topk8 -v2 aes256 -in FILE -out FILE.p8".into()));
        }
        let mut both = Der(scheme.take(SEQUENCE)?);
        let mut derivation = Der(both.take(SEQUENCE)?);
        let mut cipher = Der(both.take(SEQUENCE)?);
        if derivation.take(OID)? != PBKDF2 {
            return Some(Err(
                "its password goes through another function than PBKDF2".into(),
            ));
        }
        let mut derivation = Der(derivation.take(SEQUENCE)?);
        let salt = derivation.take(OCTETS)?;
        let rounds = NonZeroU32::new(number(derivation.take(INTEGER)?)?)?;
        if rounds.get() > ROUNDS_MAX {
            return Some(Err(format!("{rounds} rounds, at most {ROUNDS_MAX}")));
        }
        derivation.take(INTEGER);
        let hash = match derivation.take(SEQUENCE) {
            // The default.
            None => 7,
            Some(hash) => *Der(hash).take(OID)?.strip_prefix(HMAC)?.first()?,
        };
        let hash = match hash {
            7 => pbkdf2::PBKDF2_HMAC_SHA1,
            9 => pbkdf2::PBKDF2_HMAC_SHA256,
            10 => pbkdf2::PBKDF2_HMAC_SHA384,
            11 => pbkdf2::PBKDF2_HMAC_SHA512,
            _ => return Some(Err("its password goes through an unknown hash".into())),
        };
        let name = cipher.take(OID)?;
        let (cipher_kind, key_len) = match name.strip_prefix(AES) {
            Some([2]) => (&AES_128, 16),
            Some([42]) => (&AES_256, 32),
            _ => return Some(Err("encrypted with another cipher than AES-128-CBC or AES-256-CBC; try: openssl pkcs8 -topk8 -v2 aes256 -in FILE -out FILE.p8".into())),
        };
        Some(Ok(Parameters {
            salt,
            rounds,
            hash,
            cipher: cipher_kind,
            key_len,
            iv: cipher.take(OCTETS)?.try_into().ok()?,
            data,
        }))
    }

    fn decrypt(&self, password: &[u8]) -> Result<Vec<u8>, String> {
        let wrong = |_| "the password does not open this key".to_owned();
        let mut key = [0; 32];
        let key = &mut key[..self.key_len];
        pbkdf2::derive(self.hash, self.rounds, self.salt, password, key);
        let key = UnboundCipherKey::new(self.cipher, key).map_err(wrong)?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(wrong)?;
        let mut bytes = self.data.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(self.iv));
        let plain = key.decrypt(&mut bytes, context).map_err(wrong)?;
        Ok(plain.to_vec())
    }
}

/// DER that is read from the front.
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// The content of the next element, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (&found, rest) = self.0.split_first()?;
        if found != tag {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (number(len)? as usize, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(content)
    }
}

/// Big end first.
fn number(bytes: &[u8]) -> Option<u32> {
    let bytes = match bytes {
        [0, rest @ ..] => rest,
        bytes => bytes,
    };
    (bytes.len() <= 4).then(|| bytes.iter().fold(0, |n, &byte| n << 8 | u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_parameters_are_no_panic() {
        let whole: Vec<u8> = (0..=255).cycle().take(600).collect();
        let mut sequence = vec![SEQUENCE, 0x82, 2, 88];
        sequence.extend(&whole);
        for end in 0..sequence.len() {
            assert!(Parameters::parse(&sequence[..end]).is_none(), "{end} bytes");
        }
        assert!(Parameters::parse(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]).is_none());
    }

    #[test]
    fn numbers_are_read_big_end_first() {
        let rows: [(&[u8], Option<u32>); 4] = [
            (&[8, 0], Some(2048)),
            (&[0, 0xff, 0xff, 0xff, 0xff], Some(u32::MAX)),
            (&[1, 0, 0, 0, 0], None),
            (&[], Some(0)),
        ];
        for (bytes, want) in rows {
            assert_eq!(number(bytes), want, "{bytes:?}");
        }
    }
}
